//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRoutesAnswerWithTheirCodes(t *testing.T) {
	ok := func(action string) Verdict { return Verdict{OK: true, Action: action, Generation: 2} }
	no := func(action string) Verdict {
		return Verdict{Action: action, Reason: "worker 2.1 exited", Stderr: "boom\n"}
	}
	accepting := &script{
		status:   Status{State: StateServing},
		reload:   func(context.Context) Verdict { return ok(ActionReload) },
		upgrade:  func(context.Context) Verdict { return ok(ActionUpgrade) },
		rollback: func(context.Context) Verdict { return ok(ActionRollback) },
		scale: func(_ context.Context, r ScaleRequest) Verdict {
			v := ok(ActionScale)
			if r.Workers != nil {
				v.Reason = fmt.Sprintf("%d in all", *r.Workers)
			} else {
				v.Reason = fmt.Sprintf("%+d", r.Delta)
			}
			return v
		},
		weight: func(_ context.Context, r WeightRequest) Verdict {
			v := ok(ActionWeight)
			v.Reason = fmt.Sprint(r.Weights)
			return v
		},
		stop: func(_ context.Context, r StopRequest) Verdict {
			v := ok(ActionStop)
			v.Reason = fmt.Sprintf("now=%t", r.Now)
			return v
		},
	}
	refusing := &script{
		status:   Status{State: StateReloading},
		healthy:  errors.New("the dispatch loop stands still"),
		ready:    errNobody,
		reload:   func(context.Context) Verdict { return no(ActionReload) },
		upgrade:  func(context.Context) Verdict { return no(ActionUpgrade) },
		rollback: func(context.Context) Verdict { return no(ActionRollback) },
		scale:    func(context.Context, ScaleRequest) Verdict { return no(ActionScale) },
		weight:   func(context.Context, WeightRequest) Verdict { return no(ActionWeight) },
		stop:     func(context.Context, StopRequest) Verdict { return no(ActionStop) },
	}
	stopping := &script{
		status: Status{State: StateStopping},
		reload: func(context.Context) Verdict { return no(ActionReload) },
		stop:   func(context.Context, StopRequest) Verdict { return ok(ActionStop) },
	}
	tests := []struct {
		name               string
		backend            Backend
		method, path, body string
		code               int
		want               string // part of the body
	}{
		{"status", accepting, "GET", "/status", "", 200, `"state":"serving"`},
		{"healthy", accepting, "GET", "/healthz", "", 200, "ok"},
		{"ready", accepting, "GET", "/readyz", "", 200, "ok"},
		{"unhealthy", refusing, "GET", "/healthz", "", 503, "the dispatch loop stands still"},
		{"not ready", refusing, "GET", "/readyz", "", 503, "no worker serves"},
		{"reload", accepting, "POST", "/reload", "", 200, `"ok":true,"action":"reload","generation":2`},
		{"reload, empty object", accepting, "POST", "/reload", "{}", 200, `"ok":true`},
		{"reload refused", refusing, "POST", "/reload", "", 409, `"reason":"worker 2.1 exited","stderr":"boom\n"`},
		{"reload while stopping", stopping, "POST", "/reload", "", 503, `"ok":false`},
		{"stop while stopping", stopping, "POST", "/stop", "", 200, `"ok":true`},
		{"upgrade", accepting, "POST", "/upgrade", "", 200, `"action":"upgrade"`},
		{"rollback", accepting, "POST", "/rollback", "", 200, `"action":"rollback"`},
		{"rollback refused", refusing, "POST", "/rollback", "", 409, `"ok":false`},
		{"upgrade refused", refusing, "POST", "/upgrade", "", 409, `"ok":false`},
		{"scale to", accepting, "POST", "/scale", `{"workers":4}`, 200, `4 in all`},
		{"scale by", accepting, "POST", "/scale", `{"delta":-1}`, 200, `"reason":"-1"`},
		{"scale refused", refusing, "POST", "/scale", `{"delta":1}`, 409, `"ok":false`},
		{"stop", accepting, "POST", "/stop", "", 200, "now=false"},
		{"stop now", accepting, "POST", "/stop", `{"now":true}`, 200, "now=true"},
		{"stop refused", refusing, "POST", "/stop", "", 409, `"ok":false`},

		{"weight", accepting, "POST", "/weights", `{"weights":{"1":3,"2":0}}`, 200, `"reason":"map[1:3 2:0]"`},
		{"weight refused", refusing, "POST", "/weights", `{"weights":{"1":3}}`, 409, `"ok":false`},
		{"weight of nothing", accepting, "POST", "/weights", `{}`, 400, "field weights: missing"},
		{"weight of no slot", accepting, "POST", "/weights", `{"weights":{"a":1}}`, 400, "expected"},
		{"scale without body", accepting, "POST", "/scale", "", 400, "field workers: missing"},
		{"scale both", accepting, "POST", "/scale", `{"workers":4,"delta":1}`, 400, "fields workers and delta"},
		{"scale to nothing", accepting, "POST", "/scale", `{"workers":0}`, 400, "field workers: 0, expected 1 or more"},
		{"scale by text", accepting, "POST", "/scale", `{"workers":"4"}`, 400, "field workers: string, expected int"},
		{"unknown field", accepting, "POST", "/stop", `{"nwo":true}`, 400, `field \"nwo\": unknown`},
		{"unknown field where none is known", accepting, "POST", "/reload", `{"now":true}`, 400, `field \"now\": unknown`},
		{"not an object", accepting, "POST", "/stop", `[]`, 400, "body: array, expected an object"},
		{"not JSON", accepting, "POST", "/stop", `now`, 400, "body: invalid character"},
		{"cut JSON", accepting, "POST", "/stop", `{"now":`, 400, "body: JSON ends too early"},
		{"two values", accepting, "POST", "/stop", `{} {}`, 400, "body: more than one JSON value"},
		{"largest body", accepting, "POST", "/stop", "{}" + strings.Repeat(" ", maxBody-2), 200, `"ok":true`},
		{"too large a body", accepting, "POST", "/stop", "{}" + strings.Repeat(" ", maxBody-1), 413, "more than 65536 bytes"},

		{"post status", accepting, "POST", "/status", "", 405, "POST /status: expected GET"},
		{"post readyz", accepting, "POST", "/readyz", "", 405, "expected GET"},
		{"get reload", accepting, "GET", "/reload", "", 405, "expected POST"},
		{"put scale", accepting, "PUT", "/scale", "", 405, "expected POST"},
		{"no such path", accepting, "GET", "/", "", 404, "no such path"},
		{"path below", accepting, "GET", "/status/x", "", 404, "no such path"},
	}
	servers := map[Backend]*fixture{}
	for _, b := range []Backend{accepting, refusing, stopping} {
		servers[b] = start(t, b, nil)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, body := servers[tt.backend].answerOf(t, tt.method, tt.path, tt.body)
			if res.StatusCode != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("have %d %s\nwant %d with %s", res.StatusCode, body, tt.code, tt.want)
			}
			if allow := res.Header.Get("Allow"); (tt.code == 405) != (allow != "") {
				t.Errorf("have Allow %q with code %d", allow, tt.code)
			}
		})
	}
}

func TestOnlyRootAndTheOwnUserAreServed(t *testing.T) {
	euid := os.Geteuid()
	tests := []struct {
		name string
		uid  int
		err  error
		code int
	}{
		{"root", 0, nil, 200},
		{"own user", euid, nil, 200},
		{"another user", euid + 1234, nil, 403},
		{"unknown", 0, errors.New("no such option"), 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, &script{}, func(s *Server) {
				s.peerUID = func(*net.UnixConn) (int, error) { return tt.uid, tt.err }
			})
			for _, path := range []string{"/status", "/healthz", "/readyz"} {
				if res, body := f.answerOf(t, "GET", path, ""); res.StatusCode != tt.code {
					t.Errorf("%s: have %d %s, want %d", path, res.StatusCode, body, tt.code)
				}
			}
		})
	}
}

func TestRefusedUserReachesNoBackend(t *testing.T) {
	// The zero script panics when it is asked for anything but its status.
	f := start(t, &script{}, func(s *Server) {
		s.peerUID = func(*net.UnixConn) (int, error) { return s.euid + 1, nil }
	})
	for _, path := range []string{"/reload", "/upgrade", "/rollback", "/scale", "/weights", "/stop"} {
		if res, body := f.answerOf(t, "POST", path, ""); res.StatusCode != 403 || !strings.Contains(body, "may not control") {
			t.Errorf("%s: have %d %s", path, res.StatusCode, body)
		}
	}
}

func TestKernelTellsTheUser(t *testing.T) {
	uid := make(chan int, 1)
	f := start(t, &script{}, func(s *Server) {
		s.peerUID = func(c *net.UnixConn) (int, error) {
			u, err := peerUID(c)
			uid <- u
			return u, err
		}
	})
	if res, _ := f.answerOf(t, "GET", "/status", ""); res.StatusCode != 200 {
		t.Errorf("have %d", res.StatusCode)
	}
	if u := await(t, "the question", uid); u != os.Geteuid() {
		t.Errorf("have uid %d, want %d", u, os.Geteuid())
	}
}

func TestTCPIsRefused(t *testing.T) {
	s := NewServer(&script{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Get("http://" + l.Addr().String() + "/status")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("have %d, want 403", res.StatusCode)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := await(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
}

func TestClientThatLeavesDoesNotCancelTheDeploy(t *testing.T) {
	entered := make(chan struct{})
	left := make(chan struct{})
	verdict := make(chan error, 1)
	b := &script{reload: func(ctx context.Context) Verdict {
		close(entered)
		<-left
		verdict <- ctx.Err()
		return Verdict{OK: true}
	}}
	f := start(t, b, func(s *Server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// The request's own context is how one sees that the server knows.
			stop := context.AfterFunc(r.Context(), func() { close(left) })
			defer stop()
			inner.ServeHTTP(w, r)
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := NewClient(f.socket).Reload(ctx)
		asked <- err
	}()
	await(t, "the call of Reload", entered)
	cancel()
	if err := await(t, "the end of the client", asked); !errors.Is(err, context.Canceled) {
		t.Errorf("client: have %v, want context.Canceled", err)
	}
	if err := await(t, "the verdict", verdict); err != nil {
		t.Errorf("the deploy's context: %v", err)
	}
}

func TestShutdownAnswersTheVerdictInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := &script{upgrade: func(context.Context) Verdict {
		close(entered)
		<-release
		return Verdict{OK: true, Action: ActionUpgrade, Generation: 3}
	}}
	f := start(t, b, nil)
	type reply struct {
		v   Verdict
		err error
	}
	asked, shut := make(chan reply, 1), make(chan error, 1)
	go func() {
		v, err := NewClient(f.socket).Upgrade(t.Context())
		asked <- reply{v, err}
	}()
	await(t, "the call of Upgrade", entered)
	go func() { shut <- f.Shutdown(t.Context()) }()
	if err := await(t, "the end of Serve", f.served); err != nil {
		t.Errorf("serve: %v", err)
	}
	select {
	case err := <-shut:
		t.Fatalf("shutdown returned before the verdict: %v", err)
	default:
	}
	close(release)
	if r := await(t, "the answer", asked); r.err != nil || r.v.Generation != 3 {
		t.Errorf("have %+v, %v", r.v, r.err)
	}
	if err := await(t, "the end of Shutdown", shut); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := &script{reload: func(context.Context) Verdict {
		close(entered)
		<-release
		return Verdict{}
	}}
	f := start(t, b, nil)
	asked := make(chan error, 1)
	go func() {
		_, err := NewClient(f.socket).Reload(t.Context())
		asked <- err
	}()
	await(t, "the call of Reload", entered)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: have %v, want context.Canceled", err)
	}
	if err := await(t, "the end of the client", asked); err == nil {
		t.Error("the client has an answer though it was cut")
	}
	close(release)
}

func TestShutdownDoesNotWaitForASilentConnection(t *testing.T) {
	accepted := make(chan struct{}, 1)
	f := start(t, &script{}, func(s *Server) {
		inner := s.http.ConnState
		s.http.ConnState = func(c net.Conn, st http.ConnState) {
			inner(c, st)
			if st == http.StateNew {
				accepted <- struct{}{}
			}
		}
	})
	f.dial(t)
	await(t, "the accept", accepted)
	begin := time.Now()
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	// net/http alone would take 5 s.
	if d := time.Since(begin); d > 4*time.Second {
		t.Errorf("shutdown took %v", d)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	open := make(chan struct{}, maxConns+1)
	f := start(t, &script{}, func(s *Server) {
		inner := s.http.ConnState
		s.http.ConnState = func(c net.Conn, st http.ConnState) {
			inner(c, st)
			if st == http.StateNew {
				open <- struct{}{}
			}
		}
	})
	conns := make([]net.Conn, maxConns+1)
	for i := range conns {
		conns[i] = f.dial(t)
	}
	for range maxConns {
		await(t, "an accept", open)
	}
	const request = "GET /healthz HTTP/1.1\r\nHost: baton\r\nConnection: close\r\n\r\n"
	last := conns[maxConns]
	if _, err := last.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-open:
		t.Fatalf("connection %d was accepted", maxConns+1)
	default:
	}
	conns[0].Close()
	await(t, "the last accept", open)
	var b [64]byte
	n, err := last.Read(b[:])
	if have := string(b[:n]); !strings.HasPrefix(have, "HTTP/1.1 200") {
		t.Errorf("have %q, %v", have, err)
	}
}

func TestKeepAliveOutlivesTheDeadlines(t *testing.T) {
	f := start(t, &script{stop: func(context.Context, StopRequest) Verdict { return Verdict{OK: true} }}, nil)
	c := f.dial(t)
	var b [4096]byte
	for i := range 3 {
		if _, err := c.Write([]byte("POST /stop HTTP/1.1\r\nHost: baton\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b[:])
		if !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			t.Fatalf("request %d: have %q, %v", i, b[:n], err)
		}
	}
}
