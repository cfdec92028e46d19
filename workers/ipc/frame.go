//go:build unix

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// Version is the first byte of every message: a mark that never changes.
	Version = 1
	// HeaderSize is the number of bytes before the payload.
	HeaderSize = 8
	// MaxPayload is the longest payload of a message. It is well below the
	// default socket buffer, so that a message always fits into an empty one.
	MaxPayload = 32 << 10
	// MaxFiles is the most descriptors a message carries: the kernel's
	// SCM_MAX_FD.
	MaxFiles = 253
)

var (
	// ErrProtocol is wrapped by errors about messages that break the format:
	// received from the peer, or about to be sent to it.
	ErrProtocol = errors.New("ipc: protocol error")
	// ErrWouldBlock is returned by TrySend when the socket's buffer is full.
	// Nothing of the message was sent.
	ErrWouldBlock = errors.New("ipc: send would block")
	// ErrLoad is wrapped by send errors that pass when load does: EMFILE,
	// ETOOMANYREFS, ENOBUFS, ENOMEM. Nothing of the message was sent.
	ErrLoad = errors.New("ipc: out of descriptors or memory")
)

// Frame is one received message.
type Frame struct {
	// Type is the sender's.
	Type uint8
	// Payload is valid until the next Recv.
	Payload []byte
	// Files are the descriptors that came along, close-on-exec. They belong to
	// the receiver, who closes them; the slice is valid until the next Recv.
	Files []int
	// Missing counts descriptors that were announced but that the kernel could
	// not install, because the process is at its limit. The sender still has
	// its own. This is load, not an error.
	Missing int
}

// AppendFrame appends the header and the payload of a message to dst. It panics
// when files or payload exceed what a message holds: a truncated header would
// make the peer hang up, far from the mistake.
func AppendFrame(dst []byte, typ uint8, files int, payload []byte) []byte {
	if err := checkSize(files, len(payload)); err != nil {
		panic(err)
	}
	dst = append(dst, Version, typ)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(files))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}

// ParseFrame takes apart a whole message as AppendFrame makes it. The payload
// aliases b. Errors wrap ErrProtocol.
func ParseFrame(b []byte) (typ uint8, files int, payload []byte, err error) {
	typ, files, length, err := parseHeader(b)
	if err != nil {
		return 0, 0, nil, err
	}
	if got := len(b) - HeaderSize; got != length {
		return 0, 0, nil, fmt.Errorf("%w: header announces %d bytes of payload, %d came", ErrProtocol, length, got)
	}
	return typ, files, b[HeaderSize:], nil
}

// parseHeader checks everything that the header alone tells.
func parseHeader(b []byte) (typ uint8, files, length int, err error) {
	if len(b) < HeaderSize {
		return 0, 0, 0, fmt.Errorf("%w: %d bytes are too short for a header", ErrProtocol, len(b))
	}
	if b[0] != Version {
		return 0, 0, 0, fmt.Errorf("%w: version %d, want %d", ErrProtocol, b[0], Version)
	}
	files = int(binary.LittleEndian.Uint16(b[2:]))
	// Compared before the conversion: on 32-bit platforms the length could
	// turn negative.
	size := binary.LittleEndian.Uint32(b[4:])
	if size > MaxPayload {
		return 0, 0, 0, fmt.Errorf("%w: payload of %d bytes, at most %d", ErrProtocol, size, MaxPayload)
	}
	if err := checkSize(files, int(size)); err != nil {
		return 0, 0, 0, err
	}
	return b[1], files, int(size), nil
}

func checkSize(files, payload int) error {
	if files < 0 || files > MaxFiles {
		return fmt.Errorf("%w: %d descriptors in a message, at most %d", ErrProtocol, files, MaxFiles)
	}
	if payload > MaxPayload {
		return fmt.Errorf("%w: payload of %d bytes, at most %d", ErrProtocol, payload, MaxPayload)
	}
	return nil
}
