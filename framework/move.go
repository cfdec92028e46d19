package framework

import (
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/baton-go/baton/internal/movable"
	"github.com/baton-go/baton/workers"
)

// atOnce is how many connections are moved at a time.
const atOnce = 32

// pullTimeout bounds the wait for net/http to let go of a connection.
const pullTimeout = time.Second

// moveParked hands the connections on which no request has begun to another
// worker. It says whether there were any.
func (s *httpServer) moveParked() (some bool) {
	s.mu.Lock()
	var idle []*movable.Conn
	for _, st := range s.conns {
		if st.canMove() && (st.state == http.StateIdle || st.state == http.StateNew) {
			idle = append(idle, st.conn)
		}
	}
	s.mu.Unlock()
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, c := range idle {
		if _, ok := c.Parked(); !ok {
			continue
		}
		some = true
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			s.move(c)
		})
	}
	all.Wait()
	return some
}

// move hands one connection on, or serves it on if nobody takes it.
func (s *httpServer) move(c *movable.Conn) {
	m, ok := c.Pull(pullTimeout)
	if !ok {
		return // a request came first
	}
	moved := workers.Moved{Unread: m.Unread, Idle: m.Idle, New: m.New, Posted: m.Posted}
	if s.l.give(s.ln, m.Conn, moved) {
		reason := "idle"
		if m.New {
			reason = "new"
		}
		s.l.tally.moved(reason)
		return
	}
	s.l.stay()
	one := &oneListener{c: movable.Resume(m, s.srv), Listener: s.ln}
	_ = s.srv.Serve(one) // returns when it has taken the connection, or is closed
	if c, err := one.Accept(); err == nil {
		_ = c.Close()
	}
}

// oneListener yields one connection, and has ended then.
type oneListener struct {
	net.Listener
	mu sync.Mutex
	c  net.Conn
}

func (l *oneListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.c; c != nil {
		l.c = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error { return nil }
