package framework

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The listeners and connections of a single process.

// accepting tells when Accept has been called on every listener.
type accepting struct {
	left atomic.Int32
	all  chan struct{}
}

func newAccepting(n int) *accepting {
	a := &accepting{all: make(chan struct{})}
	a.left.Store(int32(n))
	return a
}

// openConns are the connections of a single process.
type openConns struct {
	mu    sync.Mutex
	conns map[*singleConn]struct{}
	ended chan struct{} // holds one
}

func (o *openConns) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.conns)
}

func (o *openConns) add(c *singleConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conns[c] = struct{}{}
}

func (o *openConns) remove(c *singleConn) {
	o.mu.Lock()
	delete(o.conns, c)
	o.mu.Unlock()
	select {
	case o.ended <- struct{}{}:
	default:
	}
}

// closeAll closes what the deadline has cut and nobody has closed: the process
// may go on.
func (o *openConns) closeAll() {
	o.mu.Lock()
	left := slices.Collect(maps.Keys(o.conns))
	o.mu.Unlock()
	for _, c := range left {
		_ = c.Close()
	}
}

// singleListener counts the connections, and can be swept: what the kernel has
// queued when the stop comes is served.
type singleListener struct {
	net.Listener
	open  *openConns
	first *accepting
	once  sync.Once
	asked atomic.Bool

	sweepEnd atomic.Pointer[time.Time] // nil until it is swept
	swept    chan struct{}             // closed when the queue was empty, or nobody takes from it
	sweptOK  sync.Once
	shut     sync.Once
	closed   chan struct{}
}

func newSingleListener(ln net.Listener, open *openConns, first *accepting) *singleListener {
	return &singleListener{Listener: ln, open: open, first: first, swept: make(chan struct{}), closed: make(chan struct{})}
}

func (l *singleListener) Accept() (net.Conn, error) {
	l.once.Do(func() {
		l.asked.Store(true)
		if l.first.left.Add(-1) == 0 {
			close(l.first.all)
		}
	})
	c, err := l.Listener.Accept()
	if end := l.sweepEnd.Load(); end != nil {
		switch {
		case err == nil:
			l.setDeadline(*end)
		case errors.Is(err, os.ErrDeadlineExceeded):
			// To the application the listener goes on until it is closed.
			l.sweptOK.Do(func() { close(l.swept) })
			<-l.closed
			err = &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
		}
	}
	if err != nil {
		return nil, err
	}
	sc := &singleConn{Conn: c, open: l.open}
	l.open.add(sc)
	return sc, nil
}

// sweepQuiet is how long nobody must have come for the queue to count as empty.
// A deadline that has passed would leave unlooked at what is there.
const sweepQuiet = 10 * time.Millisecond

// sweep makes Accept take what is queued, at most until end.
func (l *singleListener) sweep(end time.Time) {
	l.sweepEnd.Store(&end)
	if !l.asked.Load() || !l.setDeadline(end) {
		l.sweptOK.Do(func() { close(l.swept) })
	}
}

func (l *singleListener) setDeadline(end time.Time) bool {
	d, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return false
	}
	if quiet := time.Now().Add(sweepQuiet); quiet.Before(end) {
		end = quiet
	}
	return d.SetDeadline(end) == nil
}

// Close may be called again: an http.Server closes its listener as well.
func (l *singleListener) Close() (err error) {
	l.shut.Do(func() {
		err = l.Listener.Close()
		close(l.closed)
		l.sweptOK.Do(func() { close(l.swept) })
	})
	return err
}

// singleConn counts itself out, and what was read from it.
type singleConn struct {
	net.Conn
	open   *openConns
	closed atomic.Bool
}

// ReadFrom keeps sendfile.
func (c *singleConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// SyscallConn gives access to the descriptor.
func (c *singleConn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// CloseRead ends the client's half of the connection.
func (c *singleConn) CloseRead() error {
	if cr, ok := c.Conn.(interface{ CloseRead() error }); ok {
		return cr.CloseRead()
	}
	return errors.ErrUnsupported
}

// CloseWrite ends our half of the connection.
func (c *singleConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *singleConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	err := c.Conn.Close()
	c.open.remove(c)
	return err
}
