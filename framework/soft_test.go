package framework

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"

	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/workers"
)

func sayHello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }

// drained is the account of a reign that is over.
func (r *reign) drained(t *testing.T) workers.Drained {
	t.Helper()
	r.peaceful(t)
	return r.l.tally.drained(0, 0, 0)
}

func wantDrained(t *testing.T, r *reign, soft, finished workers.Tally) {
	t.Helper()
	want := workers.Drained{SoftDrained: soft, Finished: finished}.With(workers.Drained{})
	if diff := cmp.Diff(want, r.drained(t)); diff != "" {
		t.Error(diff)
	}
}

// TestTLSIsServedForTheGrace: HTTP/1 under TLS is told with its next answer.
func TestTLSIsServedForTheGrace(t *testing.T) {
	s := newTLSSuccession(t, sayHello)
	used, unused, gone := s.dialTLS("http/1.1"), s.dialTLS("http/1.1"), s.dialTLS("http/1.1")
	for _, c := range []*client{used, gone} {
		c.send(get)
		if resp, _ := c.answer(); resp.Close {
			t.Error("closed before the drain")
		}
	}
	r := s.succeed(hour())
	gone.Close()
	for name, c := range map[string]*client{"used": used, "unused": unused} {
		c.send(get)
		resp, body := c.answer()
		if body != "hello" || !resp.Close {
			t.Errorf("%s: body %q, close %v", name, body, resp.Close)
		}
		c.ended()
	}
	wantDrained(t, r, workers.Tally{"tls": 2}, workers.Tally{"tls": 1})
}

// TestIdleTLSEndsAfterTheGrace, as TLS has it, which a cut would not be.
func TestIdleTLSEndsAfterTheGrace(t *testing.T) {
	const grace = 300 * time.Millisecond
	s := newTLSSuccession(t, sayHello)
	used, unused := s.dialTLS("http/1.1"), s.dialTLS("http/1.1")
	used.send(get)
	used.answer()
	began := time.Now()
	r := s.succeed(workers.DrainOrder{Timeout: time.Hour, Grace: grace})
	for name, c := range map[string]*client{"used": used, "unused": unused} {
		if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took < grace {
			t.Errorf("%s: closed after %v", name, took)
		}
	}
	wantDrained(t, r, workers.Tally{"tls": 2}, workers.Tally{})
}

// TestIdleTLSEndsWhereOthersMove: it does not wait for a worker that could have it.
func TestIdleTLSEndsWhereOthersMove(t *testing.T) {
	s := newTLSSuccession(t, sayHello)
	c := s.dialTLS("http/1.1")
	c.send(get)
	c.answer()
	s.serving.l.give = func(net.Listener, net.Conn, workers.Moved) workers.Reception {
		t.Error("a connection under TLS was given away")
		return workers.Kept
	}
	r := s.succeed(workers.DrainOrder{Timeout: time.Hour, Grace: 100 * time.Millisecond, Move: true})
	c.ended()
	wantDrained(t, r, workers.Tally{"tls": 1}, workers.Tally{})
}

// TestTLSKeepsHalfARequest: net/http calls a connection idle, or new, until it
// has read the whole header.
func TestTLSKeepsHalfARequest(t *testing.T) {
	s := newTLSSuccession(t, sayHello)
	used, unused, idle := s.dialTLS("http/1.1"), s.dialTLS("http/1.1"), s.dialTLS("http/1.1")
	for _, c := range []*client{used, idle} {
		c.send(get)
		c.answer()
	}
	used.send(get[:20])
	unused.send(get[:20])
	r := s.succeed(workers.DrainOrder{Timeout: time.Hour, Grace: 100 * time.Millisecond})
	idle.ended() // the grace is up
	for name, c := range map[string]*client{"used": used, "unused": unused} {
		c.send(get[20:])
		if resp, body := c.answer(); body != "hello" || !resp.Close {
			t.Errorf("%s: body %q, close %v", name, body, resp.Close)
		}
	}
	wantDrained(t, r, workers.Tally{"tls": 3}, workers.Tally{})
}

// TestDrainAccounts for each connection by its kind, and by whether its client
// was told to close.
func TestDrainAccounts(t *testing.T) {
	s := newSuccession(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hijack", "/hijack-waits":
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			var told <-chan struct{}
			if r.URL.Path == "/hijack-waits" {
				told = Draining(r.Context())
			}
			io.WriteString(c, "yours\n")
			go func() {
				defer c.Close()
				if told != nil {
					<-told
				} else {
					io.Copy(io.Discard, c)
				}
			}()
		default:
			sayHello(w, r)
		}
	}, unencryptedHTTP2)
	hijack := func(path string) *client {
		c := dial(t, s.addr)
		c.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
		if line, err := c.r.ReadString('\n'); line != "yours\n" {
			t.Fatalf("%q, %v", line, err)
		}
		return c
	}
	idle, gone, http2 := dial(t, s.addr), dial(t, s.addr), dialH2(t, s.addr)
	gone.send(get)
	gone.answer()
	http2.ping()
	waits := hijack("/hijack-waits")
	r := s.succeed(hour())
	idle.send(get)
	idle.answer()
	gone.Close()
	waits.ended()
	http2.goAway()
	wantDrained(t, r, workers.Tally{"http1": 1, "http2": 1, "hijacked": 1}, workers.Tally{"http1": 1})

	// Nobody has told this one, for nobody asked.
	deaf := hijack("/hijack")
	r = s.succeed(hour())
	await(t, r.over, "the end of a drain")
	deaf.Close()
	for end := time.Now().Add(patience); r.l.tally.drained(0, 0, 0).Finished["hijacked"] != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not counted: %+v", r.l.tally.drained(0, 0, 0))
		}
	}
}

// TestConnectionsAreToldInTurn: each connection has a channel of its own, and
// clients that are told come back one after the other.
func TestConnectionsAreToldInTurn(t *testing.T) {
	const n = 40
	for _, tt := range []struct {
		name   string
		spread time.Duration
		least  time.Duration // until the last is told
	}{
		{"spread", time.Hour, (n - 1) * maxStep},
		{"at once", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			told := make(chan time.Time, n)
			entered := make(chan struct{}, n)
			var build context.Context
			s := launch(t, func(opts ...Option) error {
				return RunFunc(func(ctx context.Context) (http.Handler, error) {
					build = ctx
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						mine := Draining(r.Context())
						if Draining(r.Context()) != mine {
							t.Error("another channel for the same connection")
						}
						entered <- struct{}{}
						<-mine
						told <- time.Now()
						select {
						case <-Draining(r.Context()):
						default:
							t.Error("told, and not told when it asks again")
						}
						select {
						case <-Draining(build):
						default:
							t.Error("a connection was told before the application")
						}
					}), nil
				}, opts...)
			}, DrainSpread(tt.spread), StopTimeout(time.Hour))
			addr := s.addr()
			for range n {
				c := dial(t, addr)
				c.send(get)
			}
			for range n {
				await(t, entered, "a request")
			}
			began := time.Now()
			s.stop()
			var took time.Duration
			for range n {
				took = max(took, (<-told).Sub(began))
			}
			if took < tt.least {
				t.Errorf("the last was told after %v, want %v at least", took, tt.least)
			}
			if err := s.wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestIdleConnectionsDoNotWait: a handler that looks whether the process drains
// makes nobody else wait for the turn of its connection, once it has answered.
func TestIdleConnectionsDoNotWait(t *testing.T) {
	s := newSuccession(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-Draining(r.Context()):
		default:
			io.WriteString(w, "hello")
		}
	})
	c := dial(t, s.addr)
	c.send(get)
	c.answer()
	waiting := func() int {
		ts := &s.serving.l.turns
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if len(ts.all) != 1 {
			t.Fatalf("%d turns", len(ts.all))
		}
		return ts.all[0].conns
	}
	for end := time.Now().Add(patience); waiting() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection has its turn although it is idle")
		}
	}
}

// TestSpreadIsCapped by half of the time that the drain has.
func TestSpreadIsCapped(t *testing.T) {
	l := newLife(func() int { return 0 })
	l.turns.spread = time.Hour
	defer l.end(0)
	for _, step := range []struct {
		order workers.DrainOrder
		left  time.Duration
	}{
		{workers.DrainOrder{Timeout: 10 * time.Hour}, time.Hour},
		{workers.DrainOrder{Timeout: time.Hour}, 30 * time.Minute},
		{workers.DrainOrder{Timeout: 20 * time.Minute}, 10 * time.Minute},
		{workers.DrainOrder{Timeout: time.Hour}, 10 * time.Minute},
	} {
		l.drain(step.order)
		l.turns.mu.Lock()
		left := time.Until(l.turns.end).Round(time.Minute)
		l.turns.mu.Unlock()
		if left != step.left {
			t.Errorf("%+v: %v left, want %v", step.order, left, step.left)
		}
	}
}

// TestHijackedConnectionLeadsToItsTurn, under TLS as well, and the application
// gets the connection that it would get without us.
func TestHijackedConnectionLeadsToItsTurn(t *testing.T) {
	hijacked := make(chan net.Conn, 1)
	ctxs := make(chan context.Context, 1)
	s := newTLSSuccession(t, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		hijacked <- c
		ctxs <- r.Context()
	})
	c := s.dialTLS("http/1.1")
	c.send(get)
	mine, ctx := <-hijacked, <-ctxs
	told := Draining(ctx)
	select {
	case <-told:
		t.Error("told before the drain")
	default:
	}
	r := s.succeed(hour())
	await(t, told, "the turn of a hijacked connection")
	mine.Close()
	if b, err := io.ReadAll(c.r); err != nil || len(b) > 0 {
		t.Errorf("the client read %q, %v", b, err)
	}
	wantDrained(t, r, workers.Tally{"hijacked": 1}, workers.Tally{})
	if _, ok := mine.(*tls.Conn); !ok {
		t.Errorf("hijacked a %T", mine)
	}
}
