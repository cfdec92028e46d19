//go:build unix

package workers

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// stream is what TCP and Unix connections have in common.
type stream interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// conn is an accepted connection. It wraps the net package's, and does not
// embed it: a method that went past the wrapper would go past its Close.
type conn[S stream] struct {
	inner    S
	counters *counters
	moved    *Moved
	linger   atomic.Bool // the application chose how Close ends
	closed   atomic.Bool
}

func (c *conn[S]) Read(b []byte) (int, error)         { return c.inner.Read(b) }
func (c *conn[S]) Write(b []byte) (int, error)        { return c.inner.Write(b) }
func (c *conn[S]) LocalAddr() net.Addr                { return c.inner.LocalAddr() }
func (c *conn[S]) RemoteAddr() net.Addr               { return c.inner.RemoteAddr() }
func (c *conn[S]) SetDeadline(t time.Time) error      { return c.inner.SetDeadline(t) }
func (c *conn[S]) SetReadDeadline(t time.Time) error  { return c.inner.SetReadDeadline(t) }
func (c *conn[S]) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }
func (c *conn[S]) CloseRead() error                   { return c.inner.CloseRead() }
func (c *conn[S]) CloseWrite() error                  { return c.inner.CloseWrite() }

// SyscallConn gives access to the descriptor.
func (c *conn[S]) SyscallConn() (syscall.RawConn, error) { return c.inner.SyscallConn() }

// Close ends the connection for the client at once. A close alone would not
// while the master still has its copy, for the moment until it has read the
// acknowledgement.
func (c *conn[S]) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	if !c.linger.Load() {
		if raw, err := c.inner.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
		}
	}
	err := c.inner.Close()
	c.counters.end()
	return err
}

// Moved returns what came with the connection from another worker; false if it
// has come straight from a client.
func (c *conn[S]) Moved() (Moved, bool) {
	if c.moved == nil {
		return Moved{}, false
	}
	return *c.moved, true
}

// release closes this process' descriptor and leaves the connection alone:
// somebody else has it.
func (c *conn[S]) release() {
	if !c.closed.Swap(true) {
		_ = c.inner.Close()
		c.counters.end()
	}
}

// tcpConn has the methods of *net.TCPConn that servers look for.
type tcpConn struct{ conn[*net.TCPConn] }

// ReadFrom keeps sendfile and splice.
func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) { return c.inner.ReadFrom(r) }

// WriteTo keeps splice.
func (c *tcpConn) WriteTo(w io.Writer) (int64, error) { return c.inner.WriteTo(w) }

func (c *tcpConn) SetNoDelay(on bool) error                 { return c.inner.SetNoDelay(on) }
func (c *tcpConn) SetKeepAlive(on bool) error               { return c.inner.SetKeepAlive(on) }
func (c *tcpConn) SetKeepAlivePeriod(d time.Duration) error { return c.inner.SetKeepAlivePeriod(d) }
func (c *tcpConn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	return c.inner.SetKeepAliveConfig(k)
}
func (c *tcpConn) SetReadBuffer(n int) error  { return c.inner.SetReadBuffer(n) }
func (c *tcpConn) SetWriteBuffer(n int) error { return c.inner.SetWriteBuffer(n) }

// SetLinger also says that Close is to behave as the net package's.
func (c *tcpConn) SetLinger(sec int) error {
	c.linger.Store(true)
	return c.inner.SetLinger(sec)
}

// unixConn has the methods of *net.UnixConn that servers look for.
type unixConn struct{ conn[*net.UnixConn] }

func (c *unixConn) SetReadBuffer(n int) error  { return c.inner.SetReadBuffer(n) }
func (c *unixConn) SetWriteBuffer(n int) error { return c.inner.SetWriteBuffer(n) }
