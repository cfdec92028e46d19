package movable

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// BenchmarkRequest compares a request over a Conn with one over the bare
// connection. What Conn itself costs is in BenchmarkRequest/memory: there are
// no system calls in that.
func BenchmarkRequest(b *testing.B) {
	const answer = "HTTP/1.1 204 No Content\r\n\r\n"
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusNoContent)
	})
	serve := func(b *testing.B, c net.Conn) {
		srv := &http.Server{Handler: handler, ReadHeaderTimeout: patience, IdleTimeout: patience}
		srv.ConnState = func(nc net.Conn, s http.ConnState) {
			if c, ok := nc.(*Conn); ok {
				c.State(s)
			}
		}
		l := &stage{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- c
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = srv.Serve(l)
		}()
		b.Cleanup(func() {
			_ = srv.Close()
			<-done
		})
	}
	wrap := map[string]func(Stream) net.Conn{
		"bare":    func(s Stream) net.Conn { return s },
		"wrapped": func(s Stream) net.Conn { return Wrap(s) },
	}
	for _, how := range []string{"bare", "wrapped"} {
		b.Run("tcp/"+how, func(b *testing.B) {
			client, inner := pair(b)
			serve(b, wrap[how](inner))
			buf := make([]byte, len(answer))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = io.WriteString(client, rehearsedGet)
				if _, err := io.ReadFull(client, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("memory/"+how, func(b *testing.B) {
			m := newMemory()
			serve(b, wrap[how](m))
			b.ReportAllocs()
			for b.Loop() {
				m.send(rehearsedGet)
				m.wait(func() bool { return len(m.out) == len(answer) })
				m.set(func() { m.out = m.out[:0] })
			}
		})
	}
}

func BenchmarkPullAndResume(b *testing.B) {
	m := newMemory()
	c := Wrap(m)
	s := start(b, &http.Server{}, converse)
	s.serve(c)
	for b.Loop() {
		m.wait(func() bool { return m.waiting })
		moved, ok := c.Pull(patience)
		if !ok {
			b.Fatal("not parked")
		}
		c = Resume(moved, s.Server)
		s.serve(c)
	}
}
