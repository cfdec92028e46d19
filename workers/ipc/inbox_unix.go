//go:build unix

package ipc

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// inbox holds a message on its way in, in buffers used again and again.
type inbox struct {
	mu        sync.Mutex
	buf       []byte // room for the longest message
	oob       []byte
	msg       []byte // the received message, within buf
	files     []int
	held      bool // files are ours: no Frame has taken them
	truncated bool // the kernel dropped descriptors
	err       error

	ready func(fd uintptr) bool // for RawConn.Read
}

func (in *inbox) init() {
	in.buf = make([]byte, HeaderSize+MaxPayload)
	// Room beyond the descriptors: a control message that somebody's socket
	// option adds must not push any of them out.
	in.oob = make([]byte, unix.CmsgSpace(MaxFiles*4)+256)
}

// reset prepares for the next message.
func (in *inbox) reset() {
	in.msg = nil
	in.files = in.files[:0]
	in.held = true
	in.truncated = false
}

// receive tries to get one message. If the peer died with messages of ours
// unread, the first attempt says ECONNRESET, and what it had sent follows.
func (in *inbox) receive(fd int, wire *transport) {
	for range resetsReadPast {
		in.err = wire.read(fd, in)
		if in.err != unix.ECONNRESET {
			return
		}
	}
	in.err = io.EOF
}

// take checks the message as a whole and gives it away.
func (in *inbox) take() (Frame, error) {
	typ, files, payload, err := ParseFrame(in.msg)
	got := len(in.files)
	switch {
	case err != nil:
	case got == files && !in.truncated, got < files && in.truncated:
		in.held = false
		return Frame{Type: typ, Payload: payload, Files: in.files, Missing: files - got}, nil
	case in.truncated:
		err = fmt.Errorf("%w: header announces %d descriptors, more than %d came", ErrProtocol, files, got)
	default:
		err = fmt.Errorf("%w: header announces %d descriptors, %d came", ErrProtocol, files, got)
	}
	in.discard()
	return Frame{}, err
}

// discard closes descriptors that nobody has taken.
func (in *inbox) discard() {
	if !in.held {
		return
	}
	for _, fd := range in.files {
		unix.Close(fd)
	}
	in.files = in.files[:0]
	in.held = false
}

// collect adds the descriptors in a control buffer to files. Other control
// messages are none of our business.
func (in *inbox) collect(oob []byte) {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			for ; len(data) >= 4; data = data[4:] {
				in.files = append(in.files, int(int32(binary.NativeEndian.Uint32(data))))
			}
		}
		oob = rest
	}
}
