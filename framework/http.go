package framework

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baton-go/baton/internal/movable"
	"github.com/baton-go/baton/workers"
)

// Timeouts of the http.Server unless HTTPServer sets others.
const (
	defaultReadHeaderTimeout = 10 * time.Second
	defaultIdleTimeout       = 120 * time.Second
)

// serveHTTP makes a serve function of a handler: an http.Server for each
// listener.
func serveHTTP(build func(context.Context) (http.Handler, error), o *options) serveFunc {
	return func(ctx context.Context, ls Listeners) error {
		l := lifeOf(ctx)
		configs, err := o.loadTLS()
		if err != nil {
			return err
		}
		h, err := build(l.base)
		if err != nil {
			return fmt.Errorf("build: %w", err)
		}
		if isNilHandler(h) {
			return errors.New("build: returned neither a handler nor an error")
		}
		l.built <- h
		var servers []*httpServer
		failed := make(chan error, len(ls.names))
		for name, ln := range ls.All() {
			handler := h
			if own, ok := o.handlers[name]; ok {
				handler = own
			}
			s := newHTTPServer(l, handler, configs[name], o.httpServer)
			if s.tls != nil {
				l.tickets.use(name, s.tls.config)
			}
			s.stays.Store(slices.Contains(o.noMove, name))
			servers = append(servers, s)
			go func() {
				err := s.run(ln)
				select {
				case <-l.draining: // the listener ended, as it should
				default:
					failed <- fmt.Errorf("listener %s: %w", name, err)
				}
			}()
		}
		select {
		case err = <-failed:
			// A crash: the other listeners do not end, and nobody drains.
			for _, s := range servers {
				_ = s.srv.Close()
			}
			return err
		case <-ctx.Done():
		}
		var all sync.WaitGroup
		for _, s := range servers {
			all.Go(s.drain)
		}
		all.Wait()
		return nil
	}
}

// httpServer is an http.Server with a drain that http.Server.Shutdown does not
// have: that one closes idle connections at once, under a client that may be
// writing, and drops requests that it has just read.
type httpServer struct {
	l     *life
	srv   *http.Server
	tls   *httpTLS     // nil: the listener has none
	http2 *http.Server // sends GOAWAY; nil if there is none that can, see newHTTP2
	ln    net.Listener

	mu       sync.Mutex
	conns    map[net.Conn]*connState
	untold   map[*connState]struct{} // those of HTTP/2 that have not been sent GOAWAY
	accepted bool                    // the listener has ended: there are no more connections to come
	changed  chan struct{}           // holds one

	stays atomic.Bool // its connections do not move, or nobody takes them

	// The drain's.
	pause  time.Duration // after the last answer that there is no room
	paused time.Time     // until then no connection moves
	told   time.Time     // since then answers tell to close; zero: since the drain began
}

// parkListener wraps what it accepts, so that it can be told whether a byte of
// the next request has been read: net/http calls a connection idle, or new,
// until it has read a whole header.
// One that another worker had goes on where it was, in plain text also if the
// listener has TLS since: its client knows nothing of that.
type parkListener struct {
	net.Listener
	srv *http.Server
	tls *httpTLS
}

func (l parkListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s, ok := c.(movable.Stream)
	if from, moves := c.(interface{ Moved() (workers.Moved, bool) }); ok && moves {
		if m, ok := from.Moved(); ok {
			return movable.Resume(movable.Moved{Conn: s, Unread: m.Unread, Idle: m.Idle, New: m.New, Posted: m.Posted}, l.srv), nil
		}
	}
	if ok {
		c = movable.Wrap(s)
	}
	if l.tls != nil {
		c = l.tls.server(c)
	}
	return c, nil
}

func newHTTPServer(l *life, h http.Handler, c *tls.Config, configure []func(*http.Server)) *httpServer {
	s := &httpServer{l: l, conns: map[net.Conn]*connState{}, untold: map[*connState]struct{}{}, changed: make(chan struct{}, 1)}
	s.srv = &http.Server{
		Handler:           h,
		TLSConfig:         c,
		ReadHeaderTimeout: defaultReadHeaderTimeout,
		IdleTimeout:       defaultIdleTimeout,
	}
	for _, f := range configure {
		f(s.srv)
	}
	if c != nil {
		s.tls = newHTTPTLS(s.srv, c)
	}
	s.http2 = newHTTP2(s.srv)
	s.chain()
	return s
}

// chain puts our hooks before those that the application has set.
func (s *httpServer) chain() {
	handler := s.srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	s.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		switch {
		case c == nil:
		case r.ProtoMajor >= 2:
			// net/http calls it idle when it has no streams. Frames that are not
			// of a stream come then, too, and must not make it look busy.
			c.h2.Store(true)
		case c.conn != nil:
			c.conn.Handling(r.Method)
		}
		select {
		case <-s.l.draining:
			// The client learns with its answer that the next request needs a
			// new connection, unless this one goes to another worker after it.
			// On HTTP/2 net/http makes a GOAWAY of it, unless it has sent one.
			if c == nil || !c.canMove() || !s.moving() {
				w.Header().Set("Connection", "close")
				if c != nil {
					c.closing.Store(true)
				}
			}
		default:
		}
		handler.ServeHTTP(w, r)
	})
	state := s.srv.ConnState
	s.srv.ConnState = func(c net.Conn, st http.ConnState) {
		known := s.known(c)
		if known != nil && known.conn != nil {
			known.conn.State(st)
		}
		over := st == http.StateClosed || st == http.StateHijacked
		if !over {
			s.track(known, st)
		}
		if state != nil {
			state(c, st)
		}
		if over { // the drain waits for the application to have heard of it
			s.end(c, known, st)
		}
	}
	// Requests inherit the life of the process, under whatever the application
	// puts there. A nil context of the application is for net/http to refuse.
	base := s.srv.BaseContext
	s.srv.BaseContext = func(ln net.Listener) context.Context {
		if base == nil {
			return s.l.base
		}
		ctx := base(ln)
		if ctx == nil {
			return nil
		}
		return lifeContext{Context: ctx, life: s.l}
	}
	conn := s.srv.ConnContext
	s.srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		st := newConnState(c)
		if conn != nil {
			if ctx = conn(ctx, c); ctx == nil {
				return nil
			}
			if lifeOf(ctx) != s.l {
				ctx = lifeContext{Context: ctx, life: s.l}
			}
		}
		s.mu.Lock()
		s.conns[c] = st
		s.mu.Unlock()
		return context.WithValue(ctx, connKey{}, st)
	}
}

// lifeContext is an application's own context that also leads to our life.
type lifeContext struct {
	context.Context
	life *life
}

func (c lifeContext) Value(key any) any {
	if _, ok := key.(lifeKey); ok {
		return c.life
	}
	return c.Context.Value(key)
}

// known returns what is known of a connection. It comes with the connection,
// where that is ours: this is asked twice a request.
func (s *httpServer) known(c net.Conn) *connState {
	if mc, _ := beneath(c); mc != nil {
		st, _ := mc.Owner.(*connState)
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[c]
}

// track takes note of what net/http says of a connection that goes on. It takes
// no lock of the server's but for HTTP/2, where it seldom comes, and for what is
// no connection of ours.
func (s *httpServer) track(known *connState, st http.ConnState) {
	if known == nil { // closed before
		return
	}
	h2 := s.http2 != nil && st != http.StateNew && known.h2.Load()
	if h2 || known.conn == nil {
		s.mu.Lock()
		known.foreign = time.Now()
		if h2 && known.goAway.IsZero() && !known.over {
			s.untold[known] = struct{}{}
		}
		s.mu.Unlock()
	}
	known.state.Store(int32(st))
	if st == http.StateIdle {
		s.l.turns.rest(known)
	}
	s.notify()
}

// end takes note that net/http has done with a connection.
func (s *httpServer) end(c net.Conn, known *connState, st http.ConnState) {
	s.mu.Lock()
	if s.conns[c] == nil { // hijacked or closed before
		s.mu.Unlock()
		return
	}
	known.over = true
	if st == http.StateHijacked {
		known.hijacked.Store(true)
	} else {
		s.l.ended(known)
	}
	s.forget(c, known)
	s.mu.Unlock()
	if st == http.StateHijacked && known.conn != nil {
		known.conn.OnEnd(func() { s.l.ended(known) })
	}
	s.notify()
}

// forget removes a connection that net/http has done with. mu is held.
func (s *httpServer) forget(c net.Conn, st *connState) {
	delete(s.conns, c)
	delete(s.untold, st)
}

func (s *httpServer) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// run serves until the listener ends.
func (s *httpServer) run(ln net.Listener) error {
	s.ln = ln
	err := s.srv.Serve(parkListener{ln, s.srv, s.tls})
	s.mu.Lock()
	s.accepted = true
	s.mu.Unlock()
	s.notify()
	return err
}

// drain waits for the connections to end. Where another worker can take them,
// those on which no request has begun go to it, the others after their answer.
// Those that cannot move are told to close: HTTP/2 at once, HTTP/1 with the next
// answer, or by the end of the connection once it has been idle for its grace.
// At the deadline it cuts the rest.
func (s *httpServer) drain() {
	defer s.srv.Close()
	if s.l.moving() && movable.SelfTest() != nil {
		s.stays.Store(true) // this net/http is not the one that we know
	}
	graceUp := s.l.graceUp
	over, moved := false, false
	recheck := minRecheck
	for {
		s.goAway()
		moving := s.moving()
		if moving && s.pause > 0 && !s.l.graceLeft(time.Now()) {
			s.stays.Store(true)
			moving = false
		}
		if moved && !moving {
			s.told = time.Now()
		}
		moved = moving
		switch {
		case moving && time.Now().Before(s.paused):
			recheck = time.Until(s.paused)
		case moving:
			if s.moveParked() {
				recheck = minRecheck
				continue
			}
		}
		if over {
			s.closeIdle(moving)
		}
		s.mu.Lock()
		finished := s.accepted && len(s.conns) == 0
		s.mu.Unlock()
		if finished {
			return
		}
		var again <-chan time.Time
		switch {
		case moving:
			// net/http tells that a connection is idle just before it waits.
			again = time.After(recheck)
			recheck = min(2*recheck, idleRecheck)
		case over:
			again = time.After(idleRecheck)
		}
		select {
		case <-s.changed:
			recheck = minRecheck
		case <-again:
		case <-graceUp:
			graceUp, over = nil, true
		case <-s.l.cut:
			return
		}
	}
}
