//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/rundir"
)

// patience bounds what must happen; a test that meets it has failed.
const patience = 20 * time.Second

// selfEnv makes the test binary be batonctl, for which root's runtime directories
// are where it says.
const selfEnv = "BATONCTL_TEST_SELF"

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	if dir := os.Getenv(selfEnv); dir != "" {
		rundir.SystemRun = dir
		main()
	}
	goleak.VerifyTestMain(m)
}

// result is what a run of batonctl left.
type result struct {
	code           int
	stdout, stderr string
}

// command is batonctl in an environment in which no service can be found, but
// for what env adds.
func command(ctx context.Context, t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	// A binary built with -race sleeps for a second at its end, to see more.
	nowhere := short(t)
	cmd.Env = append([]string{selfEnv + "=" + nowhere, "GORACE=atexit_sleep_ms=0", "TMPDIR=" + nowhere, "XDG_RUNTIME_DIR="}, env...)
	return cmd
}

func batonctl(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := command(ctx, t, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("batonctl %q: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// script is a service that does what its fields say.
type script struct {
	status control.Status
	decide func(ctx context.Context, action string, scale control.ScaleRequest, now bool) control.Verdict
}

func (s *script) Status() control.Status { return s.status }
func (s *script) Healthy() error         { return nil }
func (s *script) Ready() error           { return nil }

func (s *script) Reload(ctx context.Context) control.Verdict {
	return s.decide(ctx, control.ActionReload, control.ScaleRequest{}, false)
}

func (s *script) Upgrade(ctx context.Context) control.Verdict {
	return s.decide(ctx, control.ActionUpgrade, control.ScaleRequest{}, false)
}

func (s *script) Rollback(ctx context.Context) control.Verdict {
	return s.decide(ctx, control.ActionRollback, control.ScaleRequest{}, false)
}

func (s *script) Scale(ctx context.Context, r control.ScaleRequest) control.Verdict {
	return s.decide(ctx, control.ActionScale, r, false)
}

func (s *script) Weight(ctx context.Context, r control.WeightRequest) control.Verdict {
	v := s.decide(ctx, control.ActionWeight, control.ScaleRequest{}, false)
	if v.OK {
		v.Reason = fmt.Sprint(r.Weights)
	}
	return v
}

func (s *script) Stop(ctx context.Context, r control.StopRequest) control.Verdict {
	return s.decide(ctx, control.ActionStop, control.ScaleRequest{}, r.Now)
}

// serve runs b in the runtime directory dir.
func serve(t *testing.T, b control.Backend, dir string) {
	t.Helper()
	l, err := control.Listen(rundir.SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(b)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-served); err != nil {
			t.Errorf("server: %v", err)
		}
	})
}

// short is a temporary directory whose name leaves room for a socket's path.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.MkdirAll(p, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}
