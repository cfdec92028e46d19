package movable

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	get10   = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
	chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
	expects = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
	unread  = "POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
)

// TestOnlyParkedConnectionsAreTaken holds the rule to net/http under every
// combination of timeouts, with unencrypted HTTP/2 and without.
func TestOnlyParkedConnectionsAreTaken(t *testing.T) {
	plays := append([]rehearsal{
		{name: "two bytes", send: "GE"},
		{name: "a line and a header", send: "GET / HTTP/1.1\r\nHost: x\r\n"},
		{name: "a buffer of header", send: "GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 4096-19)},
		{name: "a request and two bytes", send: rehearsedGet + "GE", idle: 1},
		{name: "a request, all but its end", send: rehearsedGet + rehearsedGet[:len(rehearsedGet)-1], idle: 1},
		{name: "a request and a header", send: rehearsedGet + "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", idle: 1},
		{name: "HEAD", send: "HEAD" + rehearsedGet[3:], idle: 1, parked: true},
		{name: "HEAD and a byte", send: "HEAD" + rehearsedGet[3:] + "H", idle: 1},
		{name: "HTTP/1.0", send: get10, idle: 1, parked: true},
		{name: "HTTP/1.0 and a line", send: get10 + "GET / HTTP/1.0\r\n", idle: 1},
		{name: "chunks and a trailer", send: chunked, idle: 1, parked: true},
		{name: "chunks and a trailer and a byte", send: chunked + "G", idle: 1},
		{name: "chunks, but for the end of the trailer", send: chunked[:len(chunked)-1]},
		{name: "100-continue, no body yet", send: expects},
		{name: "100-continue", send: expects + "abc", idle: 1, parked: true},
		{name: "100-continue and a byte", send: expects + "abcG", idle: 1},
		{name: "a body that the handler leaves", send: unread + strings.Repeat("a", 5000), idle: 1, parked: true},
		{name: "a body that the handler leaves, unfinished", send: unread + strings.Repeat("a", 4999)},
		{name: "a body that the handler leaves and a line", send: unread + strings.Repeat("a", 5000) + "GET / HTTP/1.1\r\n", idle: 1},
		{name: "eight requests", send: strings.Repeat(rehearsedGet, 8), idle: 8, parked: true},
		{name: "two buffers of requests", send: strings.Repeat(rehearsedGet, 293), idle: 293, parked: true},
		{name: "a preface cut short", send: rehearsedHTTP2[:20], h2c: true},
		{name: "hijacked", send: "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n"},
	}, rehearsals...)
	for bits := range 16 {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/unread":
			case "/hijack":
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer c.Close()
				// What looks like the proof, from somebody else.
				_ = c.SetReadDeadline(time.Time{})
				_, _ = c.Read(make([]byte, peekBuffer))
			default:
				_, _ = io.Copy(io.Discard, r.Body)
			}
		})}
		hour := func(bit int) time.Duration {
			if bits&bit != 0 {
				return time.Hour
			}
			return 0
		}
		srv.ReadTimeout, srv.ReadHeaderTimeout, srv.IdleTimeout = hour(1), hour(2), hour(4)
		h2c := bits&8 != 0
		if h2c {
			srv.Protocols = new(http.Protocols)
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true)
		}
		t.Run(fmt.Sprintf("read=%v,header=%v,idle=%v,h2c=%t", srv.ReadTimeout, srv.ReadHeaderTimeout, srv.IdleTimeout, h2c), func(t *testing.T) {
			for _, p := range plays {
				one := &http.Server{Handler: srv.Handler, ReadTimeout: srv.ReadTimeout,
					ReadHeaderTimeout: srv.ReadHeaderTimeout, IdleTimeout: srv.IdleTimeout, Protocols: srv.Protocols}
				if err := rehearse(one, h2c, []rehearsal{p}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestUntoldConnectionIsNeverParked: beneath TLS, ConnState names another
// connection, and State is not called.
func TestUntoldConnectionIsNeverParked(t *testing.T) {
	m := newMemory()
	c := Wrap(m)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.SetReadDeadline(time.Time{})
		_, _ = c.Read(make([]byte, peekBuffer))
	}()
	m.wait(func() bool { return m.waiting })
	if _, ok := c.Parked(); ok {
		t.Error("parked")
	}
	if _, ok := c.Pull(patience); ok {
		t.Error("pulled")
	}
	_ = c.Close()
	<-done
}

// TestWhatLooksLikeTheProof is the proof's last step, after what excludes it.
func TestWhatLooksLikeTheProof(t *testing.T) {
	read := func(c *Conn, s string) {
		c.inner.(*memory).send(s)
		if _, err := io.ReadFull(c, make([]byte, len(s))); err != nil {
			t.Error(err)
		}
	}
	idle := func(c *Conn) { c.State(http.StateNew); read(c, "G"); c.State(http.StateIdle) }
	for _, tt := range []struct {
		name   string
		before func(c *Conn)
		parked bool
	}{
		{"nothing excludes it", func(c *Conn) { idle(c); _ = c.SetReadDeadline(time.Time{}) }, true},
		{"the timeouts in one call", func(c *Conn) { idle(c); _ = c.SetDeadline(time.Time{}) }, true},
		{"new", func(c *Conn) { c.State(http.StateNew) }, true},
		{"new, but read by ConnContext", func(c *Conn) { read(c, "PROXY"); c.State(http.StateNew) }, false},
		{"no deadline", idle, false},
		{"two deadlines", func(c *Conn) { idle(c); _ = c.SetDeadline(time.Time{}); _ = c.SetReadDeadline(time.Time{}) }, false},
		{"not the first Read", func(c *Conn) { idle(c); _ = c.SetReadDeadline(time.Time{}); read(c, "G") }, false},
		{"active", func(c *Conn) { idle(c); _ = c.SetReadDeadline(time.Time{}); c.State(http.StateActive) }, false},
		{"hijacked", func(c *Conn) {
			idle(c)
			c.State(http.StateHijacked)
			c.State(http.StateIdle)
			_ = c.SetReadDeadline(time.Time{})
		}, false},
		{"HTTP/2", func(c *Conn) {
			c.State(http.StateNew)
			read(c, "PRI")
			read(c, rehearsedHTTP2[3:])
			c.State(http.StateIdle)
			_ = c.SetReadDeadline(time.Time{})
		}, false},
		{"nearly HTTP/2", func(c *Conn) {
			c.State(http.StateNew)
			read(c, "PRI * HTTP/1.1\r\nHost: x\r\n\r\n")
			c.State(http.StateIdle)
			_ = c.SetReadDeadline(time.Time{})
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			c := Wrap(m)
			tt.before(c)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = c.Read(make([]byte, peekBuffer))
			}()
			m.wait(func() bool { return m.waiting })
			if _, ok := c.Parked(); ok != tt.parked {
				t.Errorf("parked %t, want %t", ok, tt.parked)
			}
			_ = c.Close()
			<-done
		})
	}
}
