package movable

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"testing"
	"time"
)

const patience = 20 * time.Second

// server is an http.Server that tells its connections their states.
type server struct {
	*http.Server
	stage *stage
}

type connKey struct{}

// start serves h until the test ends.
func start(t testing.TB, srv *http.Server, h http.HandlerFunc) *server {
	s := &server{Server: srv, stage: &stage{conns: make(chan net.Conn), closed: make(chan struct{})}}
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connOf(r).Handling(r.Method)
		h(w, r)
	})
	srv.ConnState = func(nc net.Conn, st http.ConnState) {
		nc.(*Conn).State(st)
		// The end of a connection that was moved is told when the next server
		// may have told more.
		if r, ok := nc.(*Conn).inner.(*rushed); ok && st != http.StateClosed {
			r.set(func() { r.active = st == http.StateActive })
		}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(s.stage)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return s
}

func (s *server) serve(c *Conn) { s.stage.conns <- c }

func connOf(r *http.Request) *Conn { return r.Context().Value(connKey{}).(*Conn) }

// pair returns the ends of a TCP connection.
func pair(t testing.TB) (client, srv *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Close()
	})
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// parkedSoon waits until c is parked.
func parkedSoon(t testing.TB, c *Conn) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		if _, ok := c.Parked(); ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("never parked")
		}
	}
}

// pullSoon waits until c is parked, and takes it.
func pullSoon(t testing.TB, c *Conn) Moved {
	t.Helper()
	parkedSoon(t, c)
	m, ok := c.Pull(patience)
	if !ok {
		t.Fatal("parked, but not pulled")
	}
	return m
}
