package movable

import (
	"errors"
	"io"
	"net"
	"sync"
)

// copyBuffers are for streams that cannot copy by themselves: net/http has a
// pool of its own, but does not use it when it finds a ReadFrom.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ReadFrom keeps sendfile and splice.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if c.gone.Load() {
		return io.Copy(io.Discard, r)
	}
	if rf, ok := c.inner.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c.inner}, r, buf[:])
}

// WriteTo keeps splice. net/http does not use it: who does has the connection
// to himself, and it is not parked again.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	if c.gone.Load() {
		c.mu.Unlock()
		return 0, nil
	}
	c.touched = true
	c.to(never)
	c.expose()
	first := c.pending
	c.pending = nil
	c.mu.Unlock()
	var done int64
	if len(first) > 0 {
		n, err := w.Write(first)
		if done = int64(n); err != nil {
			return done, err
		}
	}
	if wt, ok := c.inner.(io.WriterTo); ok {
		n, err := wt.WriteTo(w)
		return done + n, err
	}
	n, err := io.Copy(w, struct{ io.Reader }{c.inner})
	return done + n, err
}

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error {
	if c.gone.Load() {
		return nil
	}
	return c.inner.CloseRead()
}

// CloseWrite shuts down the writing side.
func (c *Conn) CloseWrite() error {
	if c.gone.Load() {
		return nil
	}
	return c.inner.CloseWrite()
}

// ErrReading is the error of Release while a Read is in progress.
var ErrReading = errors.New("a Read is in progress")

// Release takes a connection away from its owner at his own wish: one that was
// hijacked, or is being read by nobody. It returns the bytes that are to be
// read before those of the Stream. The Conn reads as ended afterwards, and its
// Close does nothing. The error is net.ErrClosed if the connection was closed
// or taken away.
func (c *Conn) Release() (s Stream, unread []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone.Load() || c.shut:
		return nil, nil, net.ErrClosed
	case c.pull != nil || c.reads > 0:
		return nil, nil, ErrReading
	}
	c.to(never)
	c.forgo()
	_ = c.calm() // fails only if it is closed, which its next server notices
	c.gone.Store(true)
	return c.inner, c.pending, nil
}

// Left says that the Stream, which was released, has been taken.
func (c *Conn) Left() { c.ended() }

// Restore undoes Release: nobody has taken the Stream.
func (c *Conn) Restore() {
	c.mu.Lock()
	c.gone.Store(false)
	shut := c.shut
	_ = c.setReadDeadline(c.deadline.wanted) // fails only if it is closed
	c.mu.Unlock()
	if shut { // meanwhile
		_ = c.inner.Close()
	}
}

var _ net.Conn = (*Conn)(nil)
