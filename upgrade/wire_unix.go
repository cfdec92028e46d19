//go:build unix

package upgrade

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Messages between the two processes, on a stream socket: a header, then the
// payload; files ride on the header. They may be of different releases, so the
// header and the numbers are for ever.
const (
	msgOffer    byte = 1 + iota // old: opaque, for the new one to start with
	msgPrepared                 // new: ready to take over
	msgFailed                   // new: the reason why it ends
	msgEntry                    // old: owner and data of one entry, and its first files
	msgFiles                    // old: more files of that entry
	msgEnd                      // old: that was all
	msgReceived                 // new: has checked it all
	msgGo                       // old: will touch nothing any more
	msgCancel                   // old: goes on itself
	msgTaken                    // new: acts on everything
)

const (
	headerSize  = 8 // type u8, version u8, files u16, length u32
	wireVersion = 1 // as a mark: it never changes
	maxPayload  = 64 << 20
	maxFiles    = 253 // SCM_MAX_FD
)

type message struct {
	typ     byte
	payload []byte
	files   []*os.File
}

func (m message) close() {
	for _, f := range m.files {
		f.Close()
	}
}

// pair returns a connected pair of sockets: ours, and a file for the other.
func pair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "handover"), os.NewFile(uintptr(fds[1]), "handover")
	c, err := unixConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// unixConn makes a connection of f, which it owns from then on.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("handover socket is a %T", c)
	}
	return uc, nil
}

// send writes one message before the deadline.
func send(c *net.UnixConn, deadline time.Time, m message) error {
	if len(m.files) > maxFiles {
		return fmt.Errorf("%d files in one message, at most %d", len(m.files), maxFiles)
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return err
	}
	buf := make([]byte, headerSize, headerSize+len(m.payload))
	buf[0], buf[1] = m.typ, wireVersion
	binary.LittleEndian.PutUint16(buf[2:], uint16(len(m.files)))
	binary.LittleEndian.PutUint32(buf[4:], uint32(len(m.payload)))
	var fds []int
	for _, f := range m.files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		// Not File.Fd: that would make the description blocking for everybody.
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	// The header alone carries the files, so that the reader, who asks for
	// just a header first, gets them with it.
	n, _, err := c.WriteMsgUnix(buf, oob, nil)
	if err == nil && n < len(buf) {
		_, err = c.Write(buf[n:])
	}
	if err == nil && len(m.payload) > 0 {
		_, err = c.Write(m.payload)
	}
	return err
}

var errWire = errors.New("handover socket: malformed message")

// recv reads one message.
func recv(c *net.UnixConn) (message, error) {
	var head [headerSize]byte
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return message{}, err
	}
	if n == 0 {
		return message{}, io.EOF
	}
	m := message{typ: head[0]}
	if m.files, err = parseFiles(oob[:oobn]); err != nil {
		return message{}, err
	}
	if n < headerSize {
		if _, err := io.ReadFull(c, head[n:]); err != nil {
			m.close()
			return message{}, err
		}
	}
	m.typ = head[0]
	length := binary.LittleEndian.Uint32(head[4:])
	switch {
	case head[1] != wireVersion:
		err = fmt.Errorf("%w: of version %d, expected %d", errWire, head[1], wireVersion)
	case flags&unix.MSG_CTRUNC != 0 || int(binary.LittleEndian.Uint16(head[2:])) != len(m.files):
		err = fmt.Errorf("handover socket: files are missing, is the limit of open files too low?")
	case length > maxPayload:
		err = errWire
	default:
		m.payload = make([]byte, length)
		_, err = io.ReadFull(c, m.payload)
	}
	if err != nil {
		m.close()
		return message{}, err
	}
	return m, nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, errWire
	}
	var files []*os.File
	for i := range scms {
		fds, err := unix.ParseUnixRights(&scms[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd) // where the receive could not set it
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}
