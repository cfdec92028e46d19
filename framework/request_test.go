package framework

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// quietWriter is a response that nobody reads.
type quietWriter struct{ h http.Header }

func (w quietWriter) Header() http.Header         { return w.h }
func (w quietWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w quietWriter) WriteHeader(int)             {}

// What a request costs beside net/http's own: our hooks allocate nothing.
func TestRequestsAllocateNothingOfOurs(t *testing.T) {
	s := newHTTPServer(newLife(func() int { return 0 }), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := parkListener{Listener: ln, srv: s.srv}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := s.srv.ConnContext(s.srv.BaseContext(ln), c)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := quietWriter{http.Header{}}
	s.srv.ConnState(c, http.StateNew)
	if got := testing.AllocsPerRun(1000, func() {
		s.srv.ConnState(c, http.StateActive)
		s.srv.Handler.ServeHTTP(w, r)
		s.srv.ConnState(c, http.StateIdle)
	}); got != 0 {
		t.Errorf("%v allocations a request", got)
	}
}

// BenchmarkRequest compares a kept connection of ours with net/http alone, which
// has no timeouts, and with those that ours has. GOMAXPROCS=1, as in a worker of
// as many as there are CPUs, shows it best.
func BenchmarkRequest(b *testing.B) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusNoContent)
	})
	const request, answer = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"
	plain := func(srv *http.Server) func(net.Listener) error {
		srv.Handler = handler
		return srv.Serve
	}
	for _, how := range []struct {
		name  string
		serve func(net.Listener) error
	}{
		{"plain", plain(&http.Server{})},
		{"plain with timeouts", plain(&http.Server{ReadHeaderTimeout: defaultReadHeaderTimeout, IdleTimeout: defaultIdleTimeout})},
		{"ours", newHTTPServer(newLife(func() int { return 0 }), handler, nil, nil).run},
	} {
		b.Run(how.name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() { _ = how.serve(ln) }()
			client, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			buf := make([]byte, len(answer))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = io.WriteString(client, request)
				if _, err := io.ReadFull(client, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
