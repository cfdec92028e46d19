package framework

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baton-go/baton/internal/movable"
	"github.com/baton-go/baton/workers"
)

// atOnce is how many connections are moved at a time.
const atOnce = 32

// pullTimeout bounds the wait for net/http to let go of a connection.
const pullTimeout = time.Second

// After the answer that there is no room, the next attempt is made after
// minPause, then later each time.
const (
	minPause = 100 * time.Millisecond
	maxPause = time.Second
)

// moving says whether connections of this server go to another worker.
func (s *httpServer) moving() bool { return !s.stays.Load() && s.l.moving() }

// moveParked hands the connections on which no request has begun to another
// worker, while it gets them. It says whether there were any.
func (s *httpServer) moveParked() (some bool) {
	s.mu.Lock()
	var idle []*movable.Conn
	for _, st := range s.conns {
		if st.canMove() && st.rests() {
			idle = append(idle, st.conn)
		}
	}
	s.mu.Unlock()
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	var full atomic.Bool
	for _, c := range idle {
		if _, ok := c.Parked(); !ok {
			continue
		}
		some = true
		slots <- struct{}{}
		if full.Load() || !s.moving() {
			break
		}
		all.Go(func() {
			defer func() { <-slots }()
			if s.move(c) == workers.NotNow {
				full.Store(true)
			}
		})
	}
	all.Wait()
	switch {
	case full.Load():
		s.pause = min(max(2*s.pause, minPause), maxPause)
		s.paused = time.Now().Add(s.pause)
	case some:
		s.pause = 0
	}
	return some
}

// move hands one connection on, or serves it on if nobody takes it.
func (s *httpServer) move(c *movable.Conn) workers.Reception {
	m, ok := c.Pull(pullTimeout)
	if !ok {
		return workers.Taken // by a request that came first
	}
	moved := workers.Moved{Unread: m.Unread, Idle: m.Idle, New: m.New, Posted: m.Posted}
	got := s.l.give(s.ln, m.Conn, moved)
	switch got {
	case workers.Taken:
		reason := "idle"
		if m.New {
			reason = "new"
		}
		s.l.tally.moved(reason)
		return got
	case workers.Kept:
		s.stays.Store(true)
	}
	one := &oneListener{c: movable.Resume(m, s.srv), Listener: s.ln}
	_ = s.srv.Serve(one) // returns when it has taken the connection, or is closed
	if c, err := one.Accept(); err == nil {
		_ = c.Close()
	}
	return got
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
