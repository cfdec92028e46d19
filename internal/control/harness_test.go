//go:build unix

package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; a test that meets it has failed.
const patience = 10 * time.Second

// script is a Backend that does what its fields say.
type script struct {
	status   Status
	healthy  error
	ready    error
	reload   func(context.Context) Verdict
	upgrade  func(context.Context) Verdict
	rollback func(context.Context) Verdict
	scale    func(context.Context, ScaleRequest) Verdict
	weight   func(context.Context, WeightRequest) Verdict
	stop     func(context.Context, StopRequest) Verdict
}

func (b *script) Status() Status                                    { return b.status }
func (b *script) Healthy() error                                    { return b.healthy }
func (b *script) Ready() error                                      { return b.ready }
func (b *script) Reload(ctx context.Context) Verdict                { return b.reload(ctx) }
func (b *script) Upgrade(ctx context.Context) Verdict               { return b.upgrade(ctx) }
func (b *script) Rollback(ctx context.Context) Verdict              { return b.rollback(ctx) }
func (b *script) Scale(ctx context.Context, r ScaleRequest) Verdict { return b.scale(ctx, r) }
func (b *script) Weight(ctx context.Context, r WeightRequest) Verdict {
	return b.weight(ctx, r)
}
func (b *script) Stop(ctx context.Context, r StopRequest) Verdict { return b.stop(ctx, r) }

// fixture is a server on a real socket.
type fixture struct {
	*Server
	socket string
	served chan error
}

// start serves b; change may alter the server before that.
func start(t *testing.T, b Backend, change func(*Server)) *fixture {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{Server: NewServer(b), socket: socket, served: make(chan error, 1)}
	if change != nil {
		change(f.Server)
	}
	go func() { f.served <- f.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Errorf("shutdown in cleanup: %v", err)
		}
	})
	return f
}

// dial opens a connection of its own.
func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// answerOf sends one request by hand and reads the whole answer.
func (f *fixture) answerOf(t *testing.T, method, path, body string) (*http.Response, string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", f.socket)
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://baton"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, string(bytes.TrimSpace(b))
}

// await receives from ch or fails the test.
func await[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %v", what, patience)
		panic("unreachable")
	}
}

var errNobody = errors.New("no worker serves")
