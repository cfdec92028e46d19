package framework

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
)

// runSingle serves in this one process: under a debugger, in tests, and where
// there are no workers.
func runSingle(o *options, serve serveFunc) error {
	role.Store(int32(RoleSingle))
	for _, line := range o.overrides {
		o.logger.Info(line)
	}
	term := make(chan os.Signal, 2)
	signal.Notify(term, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(term)

	l := newLife()
	ls := newListeners()
	open := &openConns{ended: make(chan struct{}, 1)}
	accepting := newAccepting(len(o.Listeners))
	var bound []*listener.Listener
	defer func() {
		for _, b := range bound {
			_ = b.Close()
		}
	}()
	for _, spec := range o.Listeners {
		b, err := listener.Bind(spec)
		if err != nil {
			return fmt.Errorf("baton: %w", err)
		}
		bound = append(bound, b)
		ln, err := b.Net()
		if err != nil {
			return fmt.Errorf("baton: %w", err)
		}
		ls.add(spec.Name, &singleListener{Listener: ln, open: open, first: accepting})
	}
	for _, b := range bound {
		for _, f := range o.onListen {
			f(b.Name(), b.Addr())
		}
	}
	returned := make(chan error, 1)
	go func() { returned <- serve(l.serve, ls) }()

	stop := make(chan struct{})
	var once sync.Once
	for _, ctx := range o.stopOn {
		defer context.AfterFunc(ctx, func() { once.Do(func() { close(stop) }) })()
	}
	started := time.Now()
	ready, allAccepting := l.ready, accepting.all
	unready := time.NewTimer(o.ReadyTimeout)
	defer unready.Stop()
	for draining := false; !draining; {
		select {
		case <-allAccepting:
			allAccepting = nil
			Ready(l.base)
		case <-ready:
			ready = nil
			unready.Stop()
			o.logger.Info("serving", "role", RoleSingle.String(), "took", time.Since(started).Round(time.Millisecond).String())
		case <-unready.C:
			_ = l.end(o.KillTimeout)
			return fmt.Errorf("%w within %v", ErrNotReady, o.ReadyTimeout)
		case err := <-returned:
			if err == nil {
				err = errors.New("the serve function returned before it was told to stop")
			}
			_ = l.end(o.KillTimeout)
			return fmt.Errorf("baton: %w", err)
		case <-term:
			draining = true
		case <-stop:
			draining = true
		}
	}
	select {
	case <-time.After(o.StopDelay):
	case <-term:
	}
	return drainSingle(o, l, ls, open, returned, term)
}

func drainSingle(o *options, l *life, ls Listeners, open *openConns, returned <-chan error, term <-chan os.Signal) error {
	began := time.Now()
	timeout := o.StopTimeout - o.StopDelay
	l.drain(workers.DrainOrder{Timeout: timeout, Grace: min(o.IdleGrace, timeout), Reason: "stop"})
	for _, ln := range ls.All() {
		_ = ln.Close()
	}
	for stopped, cut := false, false; !cut && !(stopped && open.n.Load() == 0); {
		select {
		case <-returned:
			returned, stopped = nil, true
		case <-open.ended:
		case <-term:
			l.drain(workers.DrainOrder{})
		case <-l.cut:
			cut = true
		}
	}
	log := o.logger.Info
	cut := open.n.Load()
	if cut > 0 {
		log = o.logger.Warn
	}
	log("drained", "cut", cut, "took", time.Since(began).Round(time.Millisecond).String())
	if err := l.end(o.KillTimeout); err != nil {
		return fmt.Errorf("baton: %w", err)
	}
	return nil
}

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

// openConns counts the connections of a single process.
type openConns struct {
	n     atomic.Int64
	ended chan struct{} // holds one
}

type singleListener struct {
	net.Listener
	open  *openConns
	first *accepting
	once  sync.Once
	shut  atomic.Bool
}

func (l *singleListener) Accept() (net.Conn, error) {
	l.once.Do(func() {
		if l.first.left.Add(-1) == 0 {
			close(l.first.all)
		}
	})
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.n.Add(1)
	return &singleConn{Conn: c, open: l.open}, nil
}

func (l *singleListener) Close() error {
	if l.shut.Swap(true) {
		return nil // an http.Server closes its listener as well
	}
	return l.Listener.Close()
}

// singleConn counts itself out, and what was read from it.
type singleConn struct {
	net.Conn
	open     *openConns
	received atomic.Uint64
	closed   atomic.Bool
}

func (c *singleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(uint64(max(n, 0)))
	return n, err
}

func (c *singleConn) Received() uint64 { return c.received.Load() }

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
	c.open.n.Add(-1)
	select {
	case c.open.ended <- struct{}{}:
	default:
	}
	return err
}
