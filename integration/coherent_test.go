//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// settleTime is that of the longest drain in these tests, and some.
const settleTime = 20 * time.Second

// requireCoherent waits until version serves with n workers, and requires that
// there is nothing else: one master, one generation, no orphan, no zombie.
func requireCoherent(s *service, version string, n int) control.Status {
	s.t.Helper()
	for end := time.Now().Add(settleTime); ; time.Sleep(5 * time.Millisecond) {
		st, err := s.coherent(version, n)
		if err == nil {
			checkLedger(s.t, st)
			requireRuntimeDir(s)
			return st
		}
		if time.Now().After(end) {
			s.t.Fatalf("after %v: %v", settleTime, err)
		}
	}
}

// coherent says what is missing.
func (s *service) coherent(version string, n int) (control.Status, error) {
	st, err := s.tryStatus()
	if err != nil {
		return st, err
	}
	g := serving(st)
	if st.State != control.StateServing || !st.Accepting || g == nil || len(st.Generations) != 1 {
		return st, fmt.Errorf("it is %s, accepting %v, with %d generations", st.State, st.Accepting, len(st.Generations))
	}
	if g.Workers != n || !allServe(*g) {
		return st, fmt.Errorf("workers %+v, want %d", g.Processes, n)
	}
	known := map[int]bool{st.Master.PID: true}
	for _, w := range g.Processes {
		known[w.PID] = true
	}
	for _, pid := range s.frame() {
		known[pid] = true
	}
	ps := s.processes()
	for _, p := range ps {
		if !known[p.PID] || p.State == "Z" {
			return st, fmt.Errorf("process %d is none of it, or a zombie:\n%s", p.PID, table(ps))
		}
	}
	if len(ps) != len(known) {
		return st, fmt.Errorf("%d processes, want %d:\n%s", len(ps), len(known), table(ps))
	}
	if path := s.cfg.Options.PIDFile; path != "" {
		if have, _ := os.ReadFile(path); string(have) != fmt.Sprintln(st.Master.PID) {
			return st, fmt.Errorf("the pid file has %q, want %d", have, st.Master.PID)
		}
	}
	a, err := s.tryGet("/version")
	if err == nil && a.version != version {
		err = fmt.Errorf("%s serves, want %s", a.version, version)
	}
	return st, err
}

// allServe says whether a generation has the workers that it wants.
func allServe(g control.Generation) bool {
	for _, w := range g.Processes {
		if w.State != control.WorkerServing {
			return false
		}
	}
	return len(g.Processes) == g.Workers
}

// requireRuntimeDir requires that the runtime directory of a service that runs
// holds what it must, and nothing else.
func requireRuntimeDir(s *service) {
	s.t.Helper()
	eventually(s.t, waitTime, "the runtime directory holds what it must", func() bool {
		names := slices.DeleteFunc(runtimeDir(s), func(name string) bool { // those come and go
			return name == "adopt.sock" || strings.HasPrefix(name, ".workers.json")
		})
		switch fmt.Sprint(names) {
		case "[control.sock lock workers.json]":
			return true // it is supervised, by one or the other
		case "[control.sock lock]":
			return !slices.Contains(s.env, supervised)
		}
		return false
	})
}

func runtimeDir(s *service) (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "run"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// withPIDFile adds a pid file.
func withPIDFile(t *testing.T, cfg appConfig) appConfig {
	t.Helper()
	cfg.Options.PIDFile = filepath.Join(t.TempDir(), "app.pid")
	return cfg
}

// requireStops sends TERM.
func requireStops(s *service) {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	requireStopped(s)
}

// requireStopped waits for the end of the service, and requires that nothing
// is left of it.
func requireStopped(s *service) {
	s.t.Helper()
	if code := s.exitCode(); code != 0 {
		s.t.Errorf("exit status %d", code)
	}
	requireNothingLeft(s)
}

func requireNothingLeft(s *service) {
	s.t.Helper()
	s.waitProcesses(0)
	if names := runtimeDir(s); len(names) > 0 {
		s.t.Errorf("the runtime directory holds %v after the end", names)
	}
	if path := s.cfg.Options.PIDFile; path != "" {
		if pid, err := os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
			s.t.Errorf("the pid file is left: %q, %v", pid, err)
		}
	}
}
