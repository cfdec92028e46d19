package movable

import (
	"errors"
	"net"
	"time"
)

// The methods of *net.TCPConn and *net.UnixConn that applications look for on a
// hijacked connection. They fail with errors.ErrUnsupported where the Stream
// has none.

// SetNoDelay passes on to the Stream.
func (c *Conn) SetNoDelay(on bool) error {
	return option(c, func(s interface{ SetNoDelay(bool) error }) error { return s.SetNoDelay(on) })
}

// SetLinger passes on to the Stream.
func (c *Conn) SetLinger(sec int) error {
	return option(c, func(s interface{ SetLinger(int) error }) error { return s.SetLinger(sec) })
}

// SetKeepAlive passes on to the Stream.
func (c *Conn) SetKeepAlive(on bool) error {
	return option(c, func(s interface{ SetKeepAlive(bool) error }) error { return s.SetKeepAlive(on) })
}

// SetKeepAlivePeriod passes on to the Stream.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	return option(c, func(s interface{ SetKeepAlivePeriod(time.Duration) error }) error { return s.SetKeepAlivePeriod(d) })
}

// SetKeepAliveConfig passes on to the Stream.
func (c *Conn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	return option(c, func(s interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}) error {
		return s.SetKeepAliveConfig(k)
	})
}

// SetReadBuffer passes on to the Stream.
func (c *Conn) SetReadBuffer(n int) error {
	return option(c, func(s interface{ SetReadBuffer(int) error }) error { return s.SetReadBuffer(n) })
}

// SetWriteBuffer passes on to the Stream.
func (c *Conn) SetWriteBuffer(n int) error {
	return option(c, func(s interface{ SetWriteBuffer(int) error }) error { return s.SetWriteBuffer(n) })
}

// option calls f with the Stream, if that is a T and still here.
func option[T any](c *Conn, f func(T) error) error {
	if c.gone.Load() {
		return net.ErrClosed
	}
	s, ok := c.inner.(T)
	if !ok {
		return errors.ErrUnsupported
	}
	return f(s)
}
