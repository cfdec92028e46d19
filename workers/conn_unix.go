//go:build unix

package workers

import (
	"fmt"
	"io"
	"math"
	"net"
	"sync"
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

// conn is a connection that came from the master. It wraps the net package's,
// and does not embed it: a method that went past the wrapper would go past its
// Close.
type conn[S stream] struct {
	inner  S
	l      *Listener
	moved  *Moved
	first  *leftover    // came along from another worker; else nil
	inUse  atomic.Int64 // Reads and Writes in progress; below 0 while it is lent, and once it has gone
	linger atomic.Bool  // the application chose how Close ends
	sole   atomic.Bool  // no other process has had a copy

	mu     sync.Mutex
	lent   bool // to the master, which may take it
	shut   bool // Close was called meanwhile
	gone   bool // another process has it
	closed bool
}

// lentUse is below any number of Reads and Writes in progress.
const lentUse = math.MinInt64 / 2

// use keeps the connection here until done is called, or says that it is not.
func (c *conn[S]) use() bool {
	if c.inUse.Add(1) > 0 {
		return true
	}
	c.inUse.Add(-1)
	return false
}

func (c *conn[S]) done() { c.inUse.Add(-1) }

// Read reads; a connection that was handed off has ended.
func (c *conn[S]) Read(b []byte) (int, error) {
	if !c.use() {
		return 0, io.EOF
	}
	defer c.done()
	if n := c.first.read(b); n > 0 {
		return n, nil
	}
	return c.inner.Read(b)
}

// Write writes; on a connection that was handed off it fails.
func (c *conn[S]) Write(b []byte) (int, error) {
	if !c.use() {
		return 0, net.ErrClosed
	}
	defer c.done()
	return c.inner.Write(b)
}

func (c *conn[S]) LocalAddr() net.Addr                { return c.inner.LocalAddr() }
func (c *conn[S]) RemoteAddr() net.Addr               { return c.inner.RemoteAddr() }
func (c *conn[S]) SetDeadline(t time.Time) error      { return c.inner.SetDeadline(t) }
func (c *conn[S]) SetReadDeadline(t time.Time) error  { return c.inner.SetReadDeadline(t) }
func (c *conn[S]) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }

// CloseRead shuts down the reading side.
func (c *conn[S]) CloseRead() error {
	if !c.use() {
		return net.ErrClosed
	}
	defer c.done()
	return c.inner.CloseRead()
}

// CloseWrite shuts down the writing side.
func (c *conn[S]) CloseWrite() error {
	if !c.use() {
		return net.ErrClosed
	}
	defer c.done()
	return c.inner.CloseWrite()
}

// SyscallConn gives access to the descriptor, of which a copy may be made.
func (c *conn[S]) SyscallConn() (syscall.RawConn, error) {
	c.sole.Store(false)
	return c.inner.SyscallConn()
}

// Close ends the connection for the client at once. A close alone would not
// while the master still has its copy, for the moment until it has read the
// acknowledgement. One that was handed off it leaves alone.
func (c *conn[S]) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil
	case c.closed:
		return net.ErrClosed
	case c.lent:
		c.shut = true
		return nil
	}
	return c.close(!c.linger.Load() && !c.sole.Load())
}

// alone: this process has accepted it.
func (c *conn[S]) alone() { c.sole.Store(true) }

// close is called locked.
func (c *conn[S]) close(shutdown bool) error {
	c.closed = true
	if shutdown {
		if raw, err := c.inner.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
		}
	}
	err := c.inner.Close()
	c.l.w.counters.end()
	return err
}

// Handoff gives the connection to a worker of the serving generation.
func (c *conn[S]) Handoff(unread, state []byte) error {
	return c.l.w.handoff(c, c.l.index, unread, state)
}

// lend keeps everybody here off the connection.
func (c *conn[S]) lend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.lent {
		return fmt.Errorf("handoff: %w", net.ErrClosed)
	}
	if !c.inUse.CompareAndSwap(0, lentUse) {
		return ErrInUse
	}
	c.lent = true
	return nil
}

// unread returns what came along and has not been read, of a lent connection.
func (c *conn[S]) unread() []byte { return c.first.bytes() }

// keep ends a loan.
func (c *conn[S]) keep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent = false
	c.inUse.Add(-lentUse)
	if c.shut {
		_ = c.close(!c.linger.Load())
	}
}

// Moved returns what came with the connection from another worker; false if it
// has come straight from a client. Its unread bytes are the caller's then: who
// does not ask for them reads them first.
func (c *conn[S]) Moved() (Moved, bool) {
	if c.moved == nil {
		return Moved{}, false
	}
	m := *c.moved
	m.Unread = c.first.take()
	return m, true
}

// release closes this process' descriptor and leaves the connection alone:
// somebody else has it.
func (c *conn[S]) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.gone = true
		_ = c.close(false)
	}
}

// leftover is what was read from a connection by the process that had it before,
// and is to be read before what the socket has.
type leftover struct {
	mu sync.Mutex
	b  []byte
}

func (o *leftover) read(p []byte) int {
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := copy(p, o.b)
	o.b = o.b[n:]
	return n
}

func (o *leftover) writeTo(w io.Writer) (n int, err error) {
	if o == nil {
		return 0, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.b) > 0 {
		n, err = w.Write(o.b)
		o.b = o.b[n:]
	}
	return n, err
}

// take returns the bytes, which are not read here then.
func (o *leftover) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.b
	o.b = nil
	return b
}

func (o *leftover) bytes() []byte {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b
}

// tcpConn has the methods of *net.TCPConn that servers look for.
type tcpConn struct{ conn[*net.TCPConn] }

// ReadFrom keeps sendfile and splice.
func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) {
	if !c.use() {
		return 0, net.ErrClosed
	}
	defer c.done()
	return c.inner.ReadFrom(r)
}

// WriteTo keeps splice.
func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	if !c.use() {
		return 0, nil
	}
	defer c.done()
	n, err := c.first.writeTo(w)
	if err != nil {
		return int64(n), err
	}
	more, err := c.inner.WriteTo(w)
	return int64(n) + more, err
}

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
