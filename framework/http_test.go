package framework

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// app is a service under test with hold, a handler that waits.
type app struct {
	*service
	address  string
	build    context.Context
	draining <-chan struct{}
	entered  chan struct{} // holds a request that waits
	release  chan struct{} // lets one go
}

func launchApp(t *testing.T, opts ...Option) *app {
	t.Helper()
	a := &app{entered: make(chan struct{}, 10), release: make(chan struct{}, 10)}
	built := make(chan struct{})
	build := func(ctx context.Context) (http.Handler, error) {
		a.build, a.draining = ctx, Draining(ctx)
		close(built)
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
			a.entered <- struct{}{}
			select {
			case <-a.release:
				io.WriteString(w, "held")
			case <-r.Context().Done():
				io.WriteString(w, "cancelled")
			}
		})
		mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "yours\n")
				io.Copy(c, rw)
			}()
		})
		return mux, nil
	}
	a.service = launch(t, func(opts ...Option) error { return RunFunc(build, opts...) }, opts...)
	await(t, built, "build")
	a.address = a.addr()
	a.logs.await(t, "msg=serving")
	return a
}

func (a *app) drain() {
	a.t.Helper()
	a.stop()
	await(a.t, a.draining, "the drain")
}

// finish waits for a clean end.
func (a *app) finish(cut string) {
	a.t.Helper()
	if err := a.wait(); err != nil {
		a.t.Errorf("Run: %v", err)
	}
	if log := a.logs.String(); !strings.Contains(log, "msg=drained "+cut) {
		a.t.Errorf("want %s, log:\n%s", cut, log)
	}
	if a.build.Err() == nil {
		a.t.Error("build's context has not ended")
	}
}

const getHold = "GET /hold HTTP/1.1\r\nHost: test\r\n\r\n"

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	a := launchApp(t)
	c := dial(t, a.address)
	c.send(getHold)
	await(t, a.entered, "the request")
	a.drain()
	if a.build.Err() != nil {
		t.Error("build's context has ended while a request is in flight")
	}
	a.release <- struct{}{}
	if _, body := c.answer(); body != "held" {
		t.Errorf("answer %q: the request's context was cancelled", body)
	}
	c.ended()
	a.finish("cut=0")
}

// TestDrainServesIdleConnectionsForTheGrace: nothing of a client that goes on
// is lost, and it learns that it needs a new connection.
func TestDrainServesIdleConnectionsForTheGrace(t *testing.T) {
	a := launchApp(t, IdleGrace(time.Hour))
	used, unused := dial(t, a.address), dial(t, a.address)
	used.send(get)
	if resp, _ := used.answer(); resp.Close {
		t.Error("closed before the drain")
	}
	busy := dial(t, a.address)
	busy.send(getHold)
	await(t, a.entered, "the request")
	a.drain()
	for name, c := range map[string]*client{"used": used, "unused": unused} {
		c.send(get)
		resp, body := c.answer()
		if body != "hello" || !resp.Close {
			t.Errorf("%s: body %q, close %v", name, body, resp.Close)
		}
		c.ended()
	}
	// One that was busy when the drain began was not told in its answer, and is
	// served once more as well.
	a.release <- struct{}{}
	if resp, body := busy.answer(); body != "held" || resp.Close {
		t.Errorf("busy: body %q, close %v", body, resp.Close)
	}
	busy.send(get)
	if resp, body := busy.answer(); body != "hello" || !resp.Close {
		t.Errorf("busy, again: body %q, close %v", body, resp.Close)
	}
	a.finish("cut=0")
}

func TestDrainClosesIdleConnectionsAfterTheGrace(t *testing.T) {
	const grace = 400 * time.Millisecond
	a := launchApp(t, IdleGrace(grace))
	used, unused := dial(t, a.address), dial(t, a.address)
	used.send(get)
	used.answer()
	began := time.Now()
	a.stop()
	for name, c := range map[string]*client{"used": used, "unused": unused} {
		c.ended()
		if took := time.Since(began); took < grace {
			t.Errorf("%s: closed after %v", name, took)
		}
	}
	a.finish("cut=0")
}

// TestDrainGivesEachItsGrace: a connection that was busy beyond the grace has
// not been told to close, so its client may be about to write.
func TestDrainGivesEachItsGrace(t *testing.T) {
	const grace = 400 * time.Millisecond
	a := launchApp(t, IdleGrace(grace))
	idle, busy := dial(t, a.address), dial(t, a.address)
	idle.send(get)
	idle.answer()
	busy.send(getHold)
	await(t, a.entered, "the request")
	a.drain()
	idle.ended() // the grace is up
	a.release <- struct{}{}
	busy.answer()
	freed := time.Now()
	busy.ended()
	if took := time.Since(freed); took < grace-50*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	a.finish("cut=0")
}

// TestDrainKeepsHalfARequest: the client is writing it.
func TestDrainKeepsHalfARequest(t *testing.T) {
	const grace, deadline = 100 * time.Millisecond, time.Second
	a := launchApp(t, IdleGrace(grace), StopTimeout(deadline))
	fresh, used, idle := dial(t, a.address), dial(t, a.address), dial(t, a.address)
	used.send(get)
	used.answer()
	fresh.send(get[:20])
	used.send(get[:20])
	began := time.Now()
	a.stop()
	idle.ended() // the grace is up
	fresh.send(get[20:])
	if resp, body := fresh.answer(); body != "hello" || !resp.Close {
		t.Errorf("fresh: body %q, close %v", body, resp.Close)
	}
	// The other never finishes it.
	_, _ = io.ReadAll(used.r) // its end, or a reset
	if took := time.Since(began); took < deadline-100*time.Millisecond {
		t.Errorf("used: closed after %v", took)
	}
	a.finish("cut=1")
}

func TestDeadlineCutsAndCounts(t *testing.T) {
	a := launchApp(t, StopTimeout(300*time.Millisecond))
	var cs []*client
	for range 3 {
		c := dial(t, a.address)
		c.send(getHold)
		await(t, a.entered, "the request")
		cs = append(cs, c)
	}
	a.stop()
	a.finish("cut=3")
	if !strings.Contains(a.logs.String(), "level=WARN msg=drained") {
		t.Errorf("no warning:\n%s", a.logs)
	}
	for _, c := range cs {
		c.ended()
	}
}

func TestHijackedConnectionsAreWaitedFor(t *testing.T) {
	const getHijack = "GET /hijack HTTP/1.1\r\nHost: test\r\n\r\n"
	hijack := func(a *app) *client {
		c := dial(t, a.address)
		c.send(getHijack)
		if line, err := c.r.ReadString('\n'); line != "yours\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		return c
	}
	a := launchApp(t, IdleGrace(50*time.Millisecond))
	idle, c := dial(t, a.address), hijack(a)
	a.drain()
	idle.ended()
	a.running()
	c.send("still there?\n")
	if line, err := c.r.ReadString('\n'); line != "still there?\n" {
		t.Errorf("got %q, %v", line, err)
	}
	c.Close()
	a.finish("cut=0")

	a = launchApp(t, StopTimeout(300*time.Millisecond))
	c = hijack(a)
	a.stop()
	a.finish("cut=1")
	c.ended()
}

type userKey struct{}

// TestHooksOfTheApplication are called along with ours.
func TestHooksOfTheApplication(t *testing.T) {
	for _, derive := range []bool{true, false} {
		var mu sync.Mutex
		states := map[http.ConnState]int{}
		foreign := context.WithValue(context.Background(), userKey{}, "base")
		seen := make(chan string, 1)
		drained := make(chan bool, 1)
		order := []string{}
		h := func(w http.ResponseWriter, r *http.Request) {
			value, _ := r.Context().Value(userKey{}).(string)
			seen <- value
			select {
			case <-Draining(r.Context()):
				drained <- true
			case <-r.Context().Done():
				drained <- false
			}
			if r.Context().Err() != nil {
				t.Error("the drain has cancelled a request's context")
			}
		}
		s := launch(t, handler(h), HTTPServer(func(srv *http.Server) {
			order = append(order, "first")
			if srv.ReadHeaderTimeout != 10*time.Second || srv.IdleTimeout != 120*time.Second {
				t.Errorf("defaults %v, %v", srv.ReadHeaderTimeout, srv.IdleTimeout)
			}
			srv.ConnState = func(_ net.Conn, st http.ConnState) {
				mu.Lock()
				defer mu.Unlock()
				states[st]++
			}
			srv.BaseContext = func(ln net.Listener) context.Context {
				if ln == nil {
					t.Error("BaseContext without a listener")
				}
				return foreign
			}
			srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
				base, _ := ctx.Value(userKey{}).(string)
				if Draining(ctx) == nil {
					t.Error("ConnContext's context does not lead to the drain")
				}
				if !derive {
					ctx = context.Background()
				}
				if _, ok := c.(io.ReaderFrom); !ok {
					t.Errorf("%T has no ReadFrom, so no sendfile", c)
				}
				if sc, ok := c.(syscall.Conn); !ok {
					t.Errorf("%T has no SyscallConn", c)
				} else if _, err := sc.SyscallConn(); err != nil {
					t.Error(err)
				}
				return context.WithValue(ctx, userKey{}, base+"+conn")
			}
		}), HTTPServer(func(*http.Server) { order = append(order, "second") }))
		c := dial(t, s.addr())
		c.send(get)
		if v := <-seen; v != "base+conn" {
			t.Errorf("the request sees %q", v)
		}
		s.logs.await(t, "msg=serving")
		s.stop()
		if !<-drained {
			t.Error("the request's context ended")
		}
		c.answer()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		if states[http.StateNew] != 1 || states[http.StateActive] != 1 || states[http.StateClosed] != 1 {
			t.Errorf("states %v", states)
		}
		mu.Unlock()
		if strings.Join(order, " ") != "first second" {
			t.Errorf("HTTPServer functions called as %q", order)
		}
	}
}

// TestServerThatEndsIsACrash, although another listener goes on, with clients.
func TestServerThatEndsIsACrash(t *testing.T) {
	var first atomic.Pointer[http.Server]
	s := launch(t, handler(http.NotFound), second(), HTTPServer(func(srv *http.Server) { first.CompareAndSwap(nil, srv) }))
	s.addr()
	other := dial(t, s.addr())
	other.send(get)
	other.answer()
	s.logs.await(t, "msg=serving")
	first.Load().Close()
	if err := s.wait(); err == nil || !errors.Is(err, http.ErrServerClosed) || !strings.Contains(err.Error(), "listener default") {
		t.Errorf("error %v", err)
	}
}

func TestHandlersOfListeners(t *testing.T) {
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) }
	}
	s := launch(t, handler(says("main")), second(), Handle("second", says("own")))
	for _, want := range []string{"main", "own"} {
		c := dial(t, s.addr())
		c.send(get)
		if _, body := c.answer(); body != want {
			t.Errorf("body %q, want %q", body, want)
		}
	}
}

var registerOnce sync.Once

func TestNilHandlerIsTheDefaultMux(t *testing.T) {
	// Once, although the test may run several times.
	registerOnce.Do(func() {
		http.HandleFunc("/TestNilHandlerIsTheDefaultMux", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "default mux") })
	})
	s := launch(t, func(opts ...Option) error { return Run(nil, opts...) })
	c := dial(t, s.addr())
	c.send("GET /TestNilHandlerIsTheDefaultMux HTTP/1.1\r\nHost: test\r\n\r\n")
	if _, body := c.answer(); body != "default mux" {
		t.Errorf("body %q", body)
	}
}

func TestFilesAreServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	text := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, handler(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	c := dial(t, s.addr())
	for range 2 {
		c.send(get)
		if resp, body := c.answer(); body != text {
			t.Errorf("%s, %d bytes of %d", resp.Status, len(body), len(text))
		}
	}
}

// TestDrainUnderLoad: clients that go on with new requests on kept connections
// until they are told to close, or the listener is gone, lose none.
func TestDrainUnderLoad(t *testing.T) {
	a := launchApp(t, IdleGrace(patience))
	var all sync.WaitGroup
	var answered atomic.Int64
	begun := make(chan struct{})
	var once sync.Once
	for range 8 {
		c := dial(t, a.address)
		all.Go(func() {
			for {
				c.send(get)
				resp, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				if answered.Add(1) == 200 {
					once.Do(func() { close(begun) })
				}
				if resp.Close {
					return
				}
			}
		})
	}
	await(t, begun, "the load")
	a.drain()
	all.Wait()
	a.finish("cut=0")
}
