package movable

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// holding is a connection that can keep back what is written.
type holding struct {
	net.Conn
	mu   sync.Mutex
	held []byte
	hold bool
}

func (h *holding) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold {
		h.held = append(h.held, b...)
		return len(b), nil
	}
	return h.Conn.Write(b)
}

func (h *holding) let() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = false
	_, _ = h.Conn.Write(h.held)
}

// serveTLS serves a connection with TLS. The client has not begun with it.
func serveTLS(t *testing.T, srv *http.Server) (*tls.Conn, *holding, *Conn, *gated) {
	other := httptest.NewTLSServer(nil) // has a certificate
	defer other.Close()
	client, inner := pair(t)
	h := &holding{Conn: client}
	g := &gated{TCPConn: inner, ended: make(chan struct{}, 1), gate: make(chan struct{})}
	c := Wrap(g)
	c.UnderTLS()
	s := start(t, srv, nil)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0:") })
	s.ConnState = func(_ net.Conn, st http.ConnState) { c.State(st) }
	s.stage.conns <- tls.Server(c, &tls.Config{Certificates: other.TLS.Certificates})
	roots := other.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return tls.Client(h, &tls.Config{RootCAs: roots, ServerName: "example.com"}), h, c, g
}

// withTimeouts is a server that sets a deadline after the handshake.
func withTimeouts() *http.Server {
	return &http.Server{ReadHeaderTimeout: time.Hour, IdleTimeout: time.Hour}
}

func TestTLSIsParkedForTheCloseOnly(t *testing.T) {
	for name, use := range map[string]func(*testing.T, *tls.Conn){
		"silent": func(*testing.T, *tls.Conn) {},
		"new":    func(t *testing.T, c *tls.Conn) { handshake(t, c) },
		"idle":   func(t *testing.T, c *tls.Conn) { converses(t, c, rehearsedGet) },
		"used":   func(t *testing.T, c *tls.Conn) { converses(t, c, rehearsedGet); converses(t, c, rehearsedPost) },
	} {
		t.Run(name, func(t *testing.T) {
			client, _, c, g := serveTLS(t, withTimeouts())
			close(g.gate)
			use(t, client)
			parkedSoon(t, c)
			if _, ok := c.Pull(patience); ok {
				t.Error("pulled")
			}
			if !c.CloseParked(patience) {
				t.Fatal("not closed")
			}
			if c.Away() {
				t.Error("closed, and said to be elsewhere")
			}
			if name == "silent" {
				return // nobody to say goodbye to
			}
			// With TLS's own end, which a truncation has not.
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the client reads %v", err)
			}
		})
	}
}

// converses sends a request, or the rest of one, and reads the answer.
func converses(t *testing.T, c *tls.Conn, request string) {
	t.Helper()
	_, _ = io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "0:" {
		t.Errorf("answer %q, %v", body, err)
	}
}

func handshake(t *testing.T, c *tls.Conn) {
	t.Helper()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
}

func TestTLSKeepsARequestThatIsOnItsWay(t *testing.T) {
	client, _, c, g := serveTLS(t, withTimeouts())
	handshake(t, client)
	parkedSoon(t, c)
	go func() {
		<-g.ended
		_, _ = io.WriteString(client, rehearsedGet[:10])
		close(g.gate)
	}()
	if c.CloseParked(patience) {
		t.Fatal("closed, though bytes had arrived")
	}
	converses(t, client, rehearsedGet[10:])
	parkedSoon(t, c)
}

// TestTLSIsNotParkedWithHalfARequest, wherever its bytes are.
func TestTLSIsNotParkedWithHalfARequest(t *testing.T) {
	begin, rest := rehearsedGet[:10], rehearsedGet[10:]
	for _, srv := range []*http.Server{{}, withTimeouts(), {ReadTimeout: time.Hour}} {
		for name, send := range map[string]func(*testing.T, *tls.Conn, *holding){
			"after the handshake": func(t *testing.T, c *tls.Conn, _ *holding) {
				handshake(t, c)
				_, _ = io.WriteString(c, begin)
			},
			"with the handshake": func(t *testing.T, c *tls.Conn, h *holding) {
				once := sync.OnceFunc(func() { h.mu.Lock(); h.hold = true; h.mu.Unlock() })
				h.Conn = &onRead{h.Conn, once}
				handshake(t, c)
				_, _ = io.WriteString(c, begin)
				h.let()
			},
			"after an answer": func(t *testing.T, c *tls.Conn, _ *holding) {
				converses(t, c, rehearsedGet)
				_, _ = io.WriteString(c, begin)
			},
		} {
			t.Run(name, func(t *testing.T) {
				client, h, c, g := serveTLS(t, &http.Server{
					ReadTimeout: srv.ReadTimeout, ReadHeaderTimeout: srv.ReadHeaderTimeout, IdleTimeout: srv.IdleTimeout,
				})
				close(g.gate)
				send(t, client, h)
				// Once the server has it all, it waits for the rest.
				for queued(g) {
					time.Sleep(100 * time.Microsecond)
				}
				for range 100 {
					if c.CloseParked(patience) {
						t.Fatal("closed")
					}
					time.Sleep(100 * time.Microsecond)
				}
				converses(t, client, rest)
			})
		}
	}
}

// onRead calls f when the other side has answered.
type onRead struct {
	net.Conn
	f func()
}

func (r *onRead) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.f()
	return n, err
}

func TestEndIsTold(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*Conn)
		away bool
	}{
		{"closed", func(c *Conn) { c.Close(); c.Close() }, false},
		{"released", func(c *Conn) { c.Release(); c.Close() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, inner := pair(t)
			c, told := Wrap(inner), 0
			c.OnEnd(func() {
				told++
				if away := c.Away(); away != tt.away {
					t.Errorf("away %t", away)
				}
			})
			tt.end(c)
			if told != 1 {
				t.Errorf("told %d times", told)
			}
			c.OnEnd(func() { told++ })
			if told != 2 {
				t.Error("not told that it has ended before")
			}
		})
	}
}
