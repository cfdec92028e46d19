//go:build unix

package ipc

import (
	"encoding/binary"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendFlags: blocking is the poller's business, whatever mode another holder of
// the socket has put it in.
const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// outbox holds a message on its way out, in buffers used again and again.
type outbox struct {
	mu     sync.Mutex
	msg    []byte
	oob    []byte // backs rights
	rights []byte
	err    error
	hdr    unix.Msghdr // for sendmsg; here because it would be allocated
	iov    unix.Iovec

	attempt func(fd uintptr)      // for RawConn.Control
	ready   func(fd uintptr) bool // for RawConn.Write
}

func (o *outbox) init() {
	o.oob = make([]byte, unix.CmsgSpace(MaxFiles*4))
}

// prepare encodes a message whose size has been checked. The control message is
// built by hand because unix.UnixRights allocates.
func (o *outbox) prepare(typ uint8, payload []byte, files []int) {
	o.err = nil
	o.msg = AppendFrame(o.msg[:0], typ, len(files), payload)
	o.rights = nil
	if len(files) == 0 {
		return
	}
	o.rights = o.oob[:unix.CmsgSpace(len(files)*4)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&o.rights[0]))
	h.Level = unix.SOL_SOCKET
	h.Type = unix.SCM_RIGHTS
	h.SetLen(unix.CmsgLen(len(files) * 4))
	data := o.rights[unix.CmsgLen(0):]
	for i, fd := range files {
		binary.NativeEndian.PutUint32(data[i*4:], uint32(fd))
	}
}

func (o *outbox) send(fd int, wire *transport) {
	o.err = wire.write(fd, o)
}
