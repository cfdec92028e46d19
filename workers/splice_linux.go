package workers

import (
	"io"
	"math"
	"net"
	"os"
	"reflect"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSendfile is what is asked of the kernel at a time.
const maxSendfile = 4 << 20

// ReadFrom copies from r, in the kernel if r is a file or a socket.
func (s *sock) ReadFrom(r io.Reader) (int64, error) {
	if n, err, done := s.sendFile(r); done {
		return n, s.fail("readfrom", err)
	}
	from, left := limit(r)
	var src syscall.RawConn
	if own, ok := from.(unwritten); ok {
		src, _ = own.SyscallConn()
	} else {
		src = netSocket(from)
	}
	if dst, err := s.SyscallConn(); err == nil && src != nil {
		n, err, done := splice(dst, src, left)
		if l, ok := r.(*io.LimitedReader); ok {
			l.N -= n
		}
		if done {
			return n, s.fail("readfrom", err)
		}
	}
	return io.Copy(struct{ io.Writer }{s}, r)
}

// unwritten is a sock without WriteTo: it has been asked for it.
type unwritten struct{ *sock }

func (unwritten) WriteTo() {}

// WriteTo copies to w, in the kernel if w is a socket.
func (s *sock) WriteTo(w io.Writer) (int64, error) {
	if dst := netSocket(w); dst != nil {
		if src, err := s.SyscallConn(); err == nil {
			if n, err, done := splice(dst, src, math.MaxInt64); done {
				return n, s.fail("writeto", err)
			}
		}
		return io.Copy(struct{ io.Writer }{w}, unwritten{s})
	}
	return io.Copy(w, unwritten{s})
}

// netSocket returns a stream socket of package net, nil if v is none. It goes by
// the type: one that embeds it may have a Read or Write of its own.
func netSocket(v any) syscall.RawConn {
	c, ok := v.(interface {
		syscall.Conn
		LocalAddr() net.Addr
	})
	if !ok || packageOf(v) != "net" {
		return nil
	}
	if a := c.LocalAddr(); a == nil || a.Network() != "tcp" && a.Network() != "unix" {
		return nil
	}
	raw, _ := c.SyscallConn()
	return raw
}

// packageOf is the package that v's type is of.
func packageOf(v any) string {
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath()
}

// limit returns what r reads from at most, and how much of it.
func limit(r io.Reader) (io.Reader, int64) {
	if l, ok := r.(*io.LimitedReader); ok {
		return l.R, max(l.N, 0)
	}
	return r, math.MaxInt64
}

// maxSplice is what is asked of the kernel at a time; a pipe holds less.
const maxSplice = 1 << 20

// splice copies from src to dst by way of a pipe. done is false if that cannot
// be, and nothing was copied.
func splice(dst, src syscall.RawConn, left int64) (total int64, err error, done bool) {
	var pipe [2]int
	if unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return 0, nil, false
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	var n int64
	var serr error
	step := func(from, to int, most int64) (wait bool) {
		for {
			n, serr = unix.Splice(from, nil, to, nil, int(min(most, maxSplice)), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			if serr != unix.EINTR {
				return serr == unix.EAGAIN
			}
		}
	}
	failed := func(err error) error {
		if err == nil && serr != nil {
			return os.NewSyscallError("splice", serr)
		}
		return err
	}
	for left > 0 {
		err := src.Read(func(fd uintptr) bool { return !step(int(fd), pipe[1], left) })
		if total == 0 && serr == unix.EINVAL {
			return 0, nil, false
		}
		if err = failed(err); err != nil {
			return total, err, true
		}
		if n == 0 {
			break
		}
		left -= n
		for in := n; in > 0; in -= n {
			err := dst.Write(func(fd uintptr) bool { return !step(pipe[0], int(fd), in) })
			if err = failed(err); err != nil {
				return total, err, true
			}
			total += n
		}
	}
	return total, nil, true
}

// sendFile copies a regular file, or the beginning of it. done is false if that
// cannot be, and nothing was copied.
func (s *sock) sendFile(r io.Reader) (total int64, err error, done bool) {
	from, left := limit(r)
	// Not *os.File: what its WriteTo passes on is another type of package os.
	f, ok := from.(interface {
		syscall.Conn
		Stat() (os.FileInfo, error)
	})
	if !ok || packageOf(from) != "os" {
		return 0, nil, false
	}
	if i, err := f.Stat(); err != nil || !i.Mode().IsRegular() {
		return 0, nil, false
	}
	src, err := f.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	dst, err := s.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	var werr, serr error
	err = src.Control(func(in uintptr) {
		werr = dst.Write(func(out uintptr) bool {
			for left > 0 {
				n, err := unix.Sendfile(int(out), int(in), nil, int(min(left, maxSendfile)))
				switch {
				case err == unix.EINTR:
					continue
				case err == unix.EAGAIN:
					return false
				case err != nil:
					serr = err
					return true
				case n == 0:
					return true
				}
				total += int64(n)
				left -= int64(n)
			}
			return true
		})
	})
	if l, ok := r.(*io.LimitedReader); ok {
		l.N -= total
	}
	switch serr {
	case unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EIO, unix.EPERM, unix.EOVERFLOW:
		if total == 0 {
			return 0, nil, false // a file system that cannot
		}
	}
	switch {
	case serr != nil:
		return total, os.NewSyscallError("sendfile", serr), true
	case werr != nil:
		return total, werr, true
	case err != nil:
		return total, err, true
	}
	return total, nil, true
}
