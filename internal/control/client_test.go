//go:build unix

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The old master says that there is a new one, and that one is asked.
func TestClientAsksTheNewMaster(t *testing.T) {
	asked := 0
	f := start(t, &script{reload: func(context.Context) Verdict {
		if asked++; asked < 3 {
			return Verdict{Action: ActionReload, Reason: "there is a new master", Elsewhere: true}
		}
		return Verdict{OK: true, Action: ActionReload, Generation: 4}
	}}, nil)
	v, err := NewClient(f.socket).Reload(t.Context())
	if err != nil || !v.OK || v.Generation != 4 || asked != 3 {
		t.Errorf("%+v, %v after %d answers", v, err, asked)
	}
}

func TestClientCarriesEverything(t *testing.T) {
	want := sample()
	b := &script{
		status: want,
		scale: func(_ context.Context, r ScaleRequest) Verdict {
			return Verdict{OK: true, Action: ActionScale, Generation: *r.Workers, TookMS: 12, Coalesced: true}
		},
		stop: func(_ context.Context, r StopRequest) Verdict {
			return Verdict{Action: ActionStop, Reason: "no", Stderr: "a\nb\n"}
		},
		reload:   func(context.Context) Verdict { return Verdict{OK: true, Action: ActionReload} },
		upgrade:  func(context.Context) Verdict { return Verdict{OK: true, Action: ActionUpgrade} },
		rollback: func(context.Context) Verdict { return Verdict{OK: true, Action: ActionRollback} },
	}
	f := start(t, b, nil)
	c := NewClient(f.socket)
	ctx := t.Context()
	have, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("status (-want +have):\n%s", d)
	}
	four := 4
	for _, tt := range []struct {
		ask  func() (Verdict, error)
		want Verdict
	}{
		{func() (Verdict, error) { return c.Scale(ctx, ScaleRequest{Workers: &four}) },
			Verdict{OK: true, Action: ActionScale, Generation: 4, TookMS: 12, Coalesced: true}},
		{func() (Verdict, error) { return c.Stop(ctx, StopRequest{}) },
			Verdict{Action: ActionStop, Reason: "no", Stderr: "a\nb\n"}},
		{func() (Verdict, error) { return c.Reload(ctx) }, Verdict{OK: true, Action: ActionReload}},
		{func() (Verdict, error) { return c.Upgrade(ctx) }, Verdict{OK: true, Action: ActionUpgrade}},
		{func() (Verdict, error) { return c.Rollback(ctx) }, Verdict{OK: true, Action: ActionRollback}},
	} {
		v, err := tt.ask()
		if err != nil {
			t.Errorf("%s: %v", tt.want.Action, err)
		}
		if d := cmp.Diff(tt.want, v); d != "" {
			t.Errorf("%s (-want +have):\n%s", tt.want.Action, d)
		}
	}
	if err := c.Healthy(ctx); err != nil {
		t.Errorf("healthy: %v", err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Errorf("ready: %v", err)
	}
}

func TestClientTellsErrorsApart(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	f := start(t, &script{ready: errNobody, reload: func(context.Context) Verdict { <-block; return Verdict{} }}, nil)
	c := NewClient(f.socket)

	var se *StatusError
	if err := c.Ready(t.Context()); !errors.As(err, &se) || se.Code != 503 || se.Message != errNobody.Error() {
		t.Errorf("ready: have %v", err)
	}
	if _, err := c.Scale(t.Context(), ScaleRequest{}); !errors.As(err, &se) || se.Code != 400 {
		t.Errorf("scale: have %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Reload(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timeout: have %v", err)
	}

	gone := filepath.Join(t.TempDir(), "gone")
	_, err := NewClient(gone).Status(t.Context())
	if !errors.Is(err, ErrNoService) || !strings.Contains(err.Error(), gone) || strings.Contains(err.Error(), "http://") {
		t.Errorf("nobody there: have %v", err)
	}
	l, err := Listen(gone)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewClient(gone).Healthy(t.Context()); !errors.Is(err, ErrNoService) {
		t.Errorf("stale socket: have %v", err)
	}
}

// Services of other releases, as this client sees them.
func TestClientUnderstandsOtherSchemas(t *testing.T) {
	for _, schema := range []int{Schema - 1, Schema + 1} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/status":
				fmt.Fprintf(w, `{"schema":%d,"state":"serving","news":{"of":[1]},"master":{"pid":7,"mood":"good"}}`, schema)
			case "/reload":
				fmt.Fprint(w, `{"ok":true,"action":"reload","news":1}`)
			default:
				w.WriteHeader(http.StatusNotFound)
				fmt.Fprintf(w, `{"error":"no such path","schema":%d,"news":1}`, schema)
			}
		})}
		go func() { defer close(served); _ = s.Serve(l) }()
		c := NewClient(path)
		if st, err := c.Status(t.Context()); err != nil || st.Schema != schema || st.Master.PID != 7 {
			t.Errorf("schema %d: status %+v, %v", schema, st, err)
		}
		if v, err := c.Reload(t.Context()); err != nil || !v.OK {
			t.Errorf("schema %d: reload %+v, %v", schema, v, err)
		}
		_, err = c.Rollback(t.Context())
		if want := fmt.Sprintf("no such path; the service has schema %d of the control socket, this client %d (404)", schema, Schema); schema > 0 && (err == nil || err.Error() != want) {
			t.Errorf("schema %d: rollback: %v, want %s", schema, err, want)
		}
		_ = s.Close()
		<-served
	}
}

func TestServiceThatDiesIsNotAServiceNotReached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Read(make([]byte, 1))
			c.Close()
		}
	}()
	if _, err := NewClient(path).Reload(t.Context()); err == nil || errors.Is(err, ErrNoService) {
		t.Errorf("have %v", err)
	}
}

func TestStatusHasNoNullAndSharesNothing(t *testing.T) {
	s := Status{Generations: []Generation{{Number: 1}}}
	b, err := json.Marshal(s.filled())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "null") {
		t.Errorf("have null in %s", b)
	}
	if g := s.Generations[0]; g.Processes != nil || g.Ledger.Refused != nil {
		t.Error("the backend's own snapshot was written to")
	}
	b, err = json.Marshal(Status{}.filled())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"schema":1`) || strings.Contains(string(b), "null") {
		t.Errorf("have %s", b)
	}
}
