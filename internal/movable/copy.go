package movable

import (
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

// Release takes a connection away from its owner at his own wish: one that was
// hijacked, or is being read by nobody. It returns the bytes that are to be
// read before those of the Stream. The Conn reads as ended afterwards, and its
// Close does nothing. It returns false if the connection was closed or taken
// away, or if a Read is in progress.
func (c *Conn) Release() (s Stream, unread []byte, ok bool) {
	defer func() {
		if ok {
			c.ended()
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone.Load() || c.shut || c.pull != nil || c.reads > 0 {
		return nil, nil, false
	}
	c.to(never)
	c.gone.Store(true)
	unread, c.pending = c.pending, nil
	return c.inner, unread, true
}

var _ net.Conn = (*Conn)(nil)
