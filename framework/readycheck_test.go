package framework

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestReadyCheckDecides(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // of the error; "" for none
	}{
		{"silence is 200", func(http.ResponseWriter, *http.Request) {}, ""},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, ""},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, ""},
		{"hints come first", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(500) }, "status 500"},
		{"404", http.NotFound, "ready check /ok?deep=1: status 404: 404 page not found"},
		{"500", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no database", 500) }, "status 500: no database"},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic("bad template") }, "the handler panics: bad template"},
		{"a long answer", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, strings.Repeat("x", 10000))
		}, "status 500: " + strings.Repeat("x", maxCheckBody)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := mustResolve(t, environment{}, ReadyCheck("/ok?deep=1"))
			asked := ""
			built := make(chan http.Handler, 1)
			built <- http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.RequestURI + " " + r.URL.Query().Get("deep") + " " + r.UserAgent()
				tt.answer(w, r)
			})
			err := o.passes(t.Context(), built)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if asked != "GET /ok?deep=1 1 baton-ready-check" {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

func TestReadyCheckIsRepeatedWhileItSaysNotYet(t *testing.T) {
	var asked atomic.Int32
	s := launch(t, handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && asked.Add(1) < 3 {
			http.Error(w, "warming up", http.StatusServiceUnavailable)
		}
	}), ReadyCheck("/healthz"))
	s.logs.await(t, "msg=serving")
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	s.stop()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	s = launch(t, handler(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "warming up", http.StatusServiceUnavailable)
	}), ReadyCheck("/healthz"), ReadyTimeout(250*time.Millisecond))
	if err := s.wait(); !errors.Is(err, ErrNotReady) {
		t.Errorf("error %v", err)
	}
}

func TestReadyCheckFuncs(t *testing.T) {
	var order []int
	bad := errors.New("no route to the database")
	check := func(n int, err error) Option {
		return ReadyCheckFunc(func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("no deadline")
			}
			order = append(order, n)
			return err
		})
	}
	s := launch(t, server(func(ctx context.Context, _ Listeners) error {
		Ready(ctx)
		<-ctx.Done()
		return nil
	}), check(1, nil), check(2, bad), check(3, nil))
	if err := s.wait(); !errors.Is(err, ErrNotReady) || !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	if len(order) != 2 || order[1] != 2 {
		t.Errorf("order %v", order)
	}
}

func TestReadyCheckNeedsAHandler(t *testing.T) {
	serve := func(context.Context, Listeners) error { return nil }
	for _, tt := range []struct {
		opt  Option
		want string
	}{
		{ReadyCheck("/x"), `ReadyCheck("/x"): Serve has no handler to ask: expected ReadyCheckFunc`},
		{ReadyCheck("x"), `ReadyCheck("x"): expected a path that begins with "/", as in a request`},
		{ReadyCheckFunc(nil), `ReadyCheckFunc(nil): expected a function`},
	} {
		err := Serve(serve, tt.opt)
		if p := problemsOf(t, err); len(p) != 1 || p[0] != tt.want {
			t.Errorf("%q, want %q", p, tt.want)
		}
	}
}

// A handler may insist on TLS, or on knowing where it was asked.
func TestReadyCheckLooksLikeARequestOfTheListener(t *testing.T) {
	o := mustResolve(t, environment{}, ReadyCheck("/"), TLSConfig(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}))
	built := make(chan http.Handler, 1)
	built <- http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version == 0 || r.Context().Value(http.LocalAddrContextKey).(net.Addr).Network() != "tcp" {
			http.Error(w, "not for me", http.StatusForbidden)
		}
	})
	if err := o.passes(t.Context(), built); err != nil {
		t.Error(err)
	}
}
