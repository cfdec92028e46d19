package movable

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// rehearsal is what a client sends, and whether the connection is parked once
// net/http waits for more.
type rehearsal struct {
	name   string
	send   string
	idle   int // how often it becomes idle
	parked bool
	h2c    bool // only for a server with unencrypted HTTP/2
}

const (
	rehearsedGet  = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	rehearsedPost = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
	// The handler sends the first byte of the next request to itself, so that
	// the background reader gets it.
	rehearsedMore = "GET /more HTTP/1.1\r\nHost: x\r\n\r\n"
	// The preface and an empty SETTINGS frame.
	rehearsedHTTP2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
)

var rehearsals = []rehearsal{
	{name: "nothing", parked: true},
	{name: "a byte", send: "G"},
	{name: "a line", send: "GET / HTTP/1.1\r\n"},
	{name: "an answered request", send: rehearsedGet, idle: 1, parked: true},
	{name: "an answered POST", send: rehearsedPost, idle: 1, parked: true},
	{name: "two requests at once", send: rehearsedGet + rehearsedGet, idle: 2, parked: true},
	{name: "a request and a byte", send: rehearsedGet + "G", idle: 1},
	{name: "a request and three bytes", send: rehearsedGet + "GET", idle: 1},
	{name: "a request and four bytes", send: rehearsedGet + "GET ", idle: 1},
	{name: "a request and a line", send: rehearsedGet + "GET / HTTP/1.1\r\n", idle: 1},
	{name: "a request and two lines", send: rehearsedGet + "GET / HTTP/1.1\r\nHost: x\r\n", idle: 1},
	{name: "a POST and an empty line", send: rehearsedPost + "\r\n", idle: 1},
	{name: "a POST and two empty lines", send: rehearsedPost + "\r\n\r\n", idle: 1},
	{name: "a request and a byte during it", send: rehearsedMore, idle: 1},
	{name: "HTTP/2", send: rehearsedHTTP2, idle: 1, h2c: true},
}

// rehearsalLimit is for a process that is not run; a rehearsal takes some tens
// of microseconds.
const rehearsalLimit = 10 * time.Second

// SelfTest tries the proof of this package on the net/http that is compiled in,
// in memory and in a few milliseconds. A process in which it fails must not
// move connections, nor rely on Parked.
func SelfTest() error {
	for _, srv := range []*http.Server{
		{},
		{ReadTimeout: time.Hour},
		{ReadHeaderTimeout: time.Hour, IdleTimeout: time.Hour, WriteTimeout: time.Hour},
		{IdleTimeout: time.Hour, Protocols: new(http.Protocols)},
	} {
		h2c := srv.Protocols != nil
		if h2c {
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true)
		}
		if err := rehearse(srv, h2c, rehearsals); err != nil {
			return fmt.Errorf("net/http does not behave as known: %w", err)
		}
	}
	return nil
}

func rehearse(srv *http.Server, h2c bool, plays []rehearsal) error {
	stage := &stage{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.ConnState = func(nc net.Conn, s http.ConnState) {
		c := nc.(*Conn)
		c.State(s)
		if s == http.StateIdle {
			c.inner.(*memory).becameIdle()
		}
	}
	type key struct{}
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, key{}, nc)
	}
	own := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/more" {
			m := r.Context().Value(key{}).(*Conn).inner.(*memory)
			m.send("G")
			m.wait(func() bool { return len(m.in) == 0 })
		}
		if own != nil {
			own.ServeHTTP(w, r)
		}
	})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(stage)
	}()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	for _, r := range plays {
		if r.h2c && !h2c {
			continue
		}
		m := newMemory()
		c := Wrap(m)
		stage.conns <- c
		m.send(r.send)
		err := r.judge(c, m)
		_ = m.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

func (r rehearsal) judge(c *Conn, m *memory) error {
	if !m.wait(func() bool { return m.idle == r.idle && m.waiting && len(m.in) == 0 }) {
		return fmt.Errorf("became idle %d times, want %d, or does not read", m.idle, r.idle)
	}
	if _, parked := c.Parked(); parked != r.parked {
		return fmt.Errorf("parked %t, want %t", parked, r.parked)
	}
	before := m.written()
	moved, ok := c.Pull(rehearsalLimit)
	switch {
	case ok != r.parked:
		return fmt.Errorf("pulled %t, want %t", ok, r.parked)
	case !ok:
		return nil
	case moved.New != (r.idle == 0) || len(moved.Unread) > 0:
		return fmt.Errorf("pulled as new %t with %d bytes", moved.New, len(moved.Unread))
	case !bytes.Equal(before, m.written()):
		return fmt.Errorf("net/http wrote %q after the pull", m.written()[len(before):])
	case m.isClosed():
		return fmt.Errorf("net/http closed the connection after the pull")
	}
	return nil
}

// stage is a listener of connections in memory.
type stage struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (s *stage) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close is called once by http.Server.
func (s *stage) Close() error   { close(s.closed); return nil }
func (s *stage) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "memory"} }
