package movable

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Stream is a connection beneath a Conn: *net.TCPConn, *net.UnixConn or a
// wrapper of one. A Read that a deadline interrupts must fail with
// os.ErrDeadlineExceeded and must not lose bytes.
type Stream interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// Conn is a connection that net/http serves and that can be taken away from it.
// It embeds nothing: a method that went past it would also go past the proof,
// or touch the connection after it has gone.
type Conn struct {
	// Owner is who serves the connection. It is set before net/http says
	// anything of it, and not changed then.
	Owner any

	inner Stream
	gone  atomic.Bool // taken away: inner is no longer ours. Set under mu.

	mu        sync.Mutex
	phase     phase
	reads     int  // that are in progress
	parked    bool // one of them fulfils the proof
	touched   bool // Read has returned bytes
	unused    bool // no request has been answered on the connection
	deadlines int  // read deadlines set since StateIdle
	deadline  deadline
	since     time.Time // when it became idle, or new
	limited   bool      // there is a write deadline
	preface   int       // bytes of the HTTP/2 preface seen, or prefaceDone
	posting   bool      // the request in the handler is a POST
	posted    bool      // the last request was a POST
	pull      *pull     // in progress
	shut      bool      // closed by net/http or the application
	pending   []byte    // bytes to be read before those of inner
	resumed   *resumed  // nil when nothing is left of the former life
	tls       bool      // net/http reads what TLS makes of the bytes
	read      bool      // under TLS: bytes have come since the last deadline was set
	records   records   // under TLS, until the first request has been read
	ending    bool      // under TLS: net/http has been told that the connection has ended
	onEnd     func()    // nil when it has been called, or there is none
}

// phase is where net/http is with the connection.
type phase uint8

const (
	untold phase = iota // State has not been called
	fresh               // new, and no byte has been read
	idle                // StateIdle was the last that happened, but for deadlines
	busy
	never // hijacked, closed, HTTP/2: it will not be parked again
)

// Wrap makes a Conn of an accepted connection, for net/http to serve.
func Wrap(c Stream) *Conn { return &Conn{inner: c, unused: true} }

// peekBuffer is the size of net/http's buffer: of bufio's default, which is not
// exported. SelfTest fails when it is not this.
const peekBuffer = 4096

func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.mu.Lock()
	if c.gone.Load() || c.ending {
		c.mu.Unlock()
		// More than once: with unencrypted HTTP/2 enabled, net/http reads again
		// after a first io.EOF.
		return 0, io.EOF
	}
	if c.resumed != nil {
		c.resumed.reading(c, len(p))
	}
	have, more := c.takePending(p)
	if have > 0 && !more {
		c.mu.Unlock()
		return have, nil
	}
	if err := c.late(); err != nil {
		c.to(busy)
		c.mu.Unlock()
		return 0, err
	}
	mine := false
	switch {
	case c.reads > 0: // net/http never does this, so it is somebody else
		c.to(busy)
	case c.tls:
		mine = c.quiet()
		if c.phase == fresh {
			p = p[:min(len(p), c.records.limit())]
		}
	case c.phase == fresh:
		mine = true
	case c.phase == idle:
		mine = c.deadlines == 1 && len(p) == peekBuffer
		c.to(busy) // the next Read is not the first
	}
	c.parked = c.parked || mine
	c.reads++
	c.mu.Unlock()
	for {
		n, err := c.inner.Read(p[have:])
		c.mu.Lock()
		again := false
		have, err, again = c.arrived(mine, p[:have+n], have, err)
		mine = mine && c.parked
		c.mu.Unlock()
		if !again {
			return have, err
		}
	}
}

// arrived decides what becomes of what a Read of inner has returned: b, behind
// the first have bytes, which Read keeps. again says that the Read is not over,
// and keeps so many bytes. mu is held.
func (c *Conn) arrived(mine bool, b []byte, have int, err error) (_ int, _ error, again bool) {
	n := len(b) - have
	timeout := n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
	if mine && c.pull != nil { // have is 0
		switch {
		case n > 0 && c.pull.keep:
			c.pull.unread = append([]byte(nil), b...)
			fallthrough
		case timeout && (c.pull.keep || !queued(c.inner)):
			c.gone.Store(!c.tls)
			c.ending = c.tls
			c.parked = false
			c.forgo()
			c.reads--
			c.settle(true)
			return 0, io.EOF, false
		}
		c.settle(false) // a request has come first, or the client has left
	}
	if timeout && c.pull == nil && !c.deadline.over() {
		// Of a pull that was given up, or of a deadline that has been moved.
		c.deadline.woke = true
		_ = c.obey() // fails only if it is closed: the next attempt says so
		return have, nil, true
	}
	switch {
	case n > 0:
		c.parked = c.parked && !mine
		if c.read = true; !c.tls {
			c.to(busy)
		} else if c.phase == fresh {
			c.records.passed(b)
		}
		var more bool
		if n, more = c.deliver(b); more && err == nil {
			return n, nil, true
		}
	case err != nil:
		c.to(busy)
	case have > 0:
		return have, nil, true
	}
	c.parked = c.parked && !mine
	c.reads--
	return n, err, false
}

// to changes the phase, unless it is the last. mu is held.
func (c *Conn) to(p phase) {
	if c.phase != never {
		c.phase = p
	}
}

// takePending fills p with bytes that came with the connection. more says that
// they must be read on behind, before Read returns. mu is held.
func (c *Conn) takePending(p []byte) (n int, more bool) {
	for len(c.pending) > 0 {
		taken := copy(p[n:], c.pending)
		if c.pending = c.pending[taken:]; len(c.pending) == 0 {
			c.pending = nil
		}
		c.to(busy)
		if n, more = c.deliver(p[:n+taken]); !more {
			break
		}
	}
	return n, more
}

const (
	prefaceLine = "PRI * HTTP/2.0"
	prefaceDone = -1
)

// deliver looks at the bytes that Read is about to return, and returns how many
// of them are to be; with more, Read keeps them and reads on. mu is held.
func (c *Conn) deliver(b []byte) (n int, more bool) {
	c.touched = true
	if c.resumed != nil {
		if n, more = c.resumed.bytes(c, b); more {
			return n, true
		}
		b = b[:n]
	}
	for i := 0; c.preface != prefaceDone && !c.tls && i < len(b); i++ {
		if b[i] != prefaceLine[c.preface] {
			c.preface = prefaceDone
		} else if c.preface++; c.preface == len(prefaceLine) {
			c.preface = prefaceDone
			c.to(never)
		}
	}
	return len(b), false
}

// Close closes the connection, unless it has been taken away: then it only
// tells Pull that net/http has let it go.
func (c *Conn) Close() error {
	c.ended()
	c.mu.Lock()
	if c.gone.Load() || c.ending {
		if c.pull != nil {
			c.pull.let()
		}
		c.shut = true // should it be restored
		c.forgo()
		c.mu.Unlock()
		return nil
	}
	c.shut = true
	c.forgo()
	c.to(never)
	if c.pull != nil { // which closes, if it has to leave the connection here
		c.mu.Unlock()
		return nil
	}
	foreign := c.tls && c.records.foreign
	c.mu.Unlock()
	if foreign {
		c.swallow()
	}
	return c.inner.Close()
}

// SetReadDeadline sets the deadline of Read. Those that net/http sets first on
// a resumed connection are corrected by what had passed before.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadlines++
	c.read = false
	if c.resumed != nil {
		var hold bool
		if t, hold = c.resumed.deadline(c, t); hold {
			return nil
		}
	}
	return c.setReadDeadline(t)
}

// SetWriteDeadline sets the deadline of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// net/http takes one away after each request, mostly where there is none.
	if c.gone.Load() || t.IsZero() && !c.limited && !c.shut {
		return nil
	}
	c.limited = !t.IsZero()
	return c.inner.SetWriteDeadline(t)
}

// SetDeadline sets the deadlines of Read and Write.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// Write discards what is written after the connection has been taken away:
// net/http may answer, with a 400, a request that was cut short.
func (c *Conn) Write(p []byte) (int, error) {
	if c.gone.Load() {
		return len(p), nil
	}
	return c.inner.Write(p)
}

// LocalAddr returns the address of the connection's own end.
func (c *Conn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// RemoteAddr returns the address of the client.
func (c *Conn) RemoteAddr() net.Addr { return c.inner.RemoteAddr() }

// SyscallConn gives access to the descriptor while the connection is here.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone.Load() {
		return nil, net.ErrClosed
	}
	c.expose()
	return c.inner.SyscallConn()
}
