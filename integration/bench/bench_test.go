//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/peers"
	"github.com/baton-go/baton/integration/peers/peerstest"
)

func TestAShortRunMeasuresEverything(t *testing.T) {
	begin, end := peers.Markers(marker)
	out := t.TempDir()
	readme := filepath.Join(out, "README.md")
	if err := os.WriteFile(readme, []byte("before\n"+begin+"\nold\n"+end+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	results := filepath.Join(out, "results")
	args := []string{"-short", "-out", results, "-readme", readme, "-peers", "baton,nginx", "-nginx", "/no/such/nginx"}
	measured := loads
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Log("wrk is not installed: open loops only")
		measured = loads[len(loads)-2:]
		args = append(args, "-loads", names(measured))
	}
	cmd, dir := peerstest.Command(t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	t.Logf("%v\n%s%s", err, &stderr, &stdout)
	if err != nil {
		t.Fatal(err)
	}
	peerstest.RequireNothingLeft(t, dir)

	var r report
	text, err := os.ReadFile(filepath.Join(results, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, l := range measured {
		want := []figure{rate, cpu}
		if l.open != nil {
			want = []figure{rate, cpu, p50, p99, most}
		}
		for _, f := range want {
			for _, name := range []string{plain, "baton"} {
				if have := r.find(l.name, name, f.name); have.Ratio.N != 1 || have.Absolute.Median <= 0 {
					t.Errorf("%s of %s under %s: have %v", f.name, name, l.name, have)
				}
			}
		}
		if n := r.errors(l.name, "baton"); n > 0 {
			t.Errorf("%s: Baton had %d errors", l.name, n)
		}
	}
	if u := r.find(connLatency, "baton", unevennessName); u.Absolute.N != 1 {
		t.Errorf("have unevenness %v", u)
	}
	for _, p := range r.Peers {
		if (p.Unavailable != "") != (p.Name == "nginx") || p.Differs != "" {
			t.Errorf("have %+v", p)
		}
	}
	// Each aspect has been looked at; the values are those of a moment.
	if len(r.Service) != 6 {
		t.Errorf("have of the service %+v", r.Service)
	}
	for _, f := range r.Service {
		if f.Peer != "baton" || f.What == "" || f.Goal < 0 || strings.Contains(f.What, "difference") && f.Value != 0 {
			t.Errorf("have %+v", f)
		}
	}
	if len(r.Goals) == 0 || r.Environment.CPUs == 0 || r.Rounds != 1 {
		t.Errorf("have goals %v in %+v", r.Goals, r.Environment)
	}
	charts, _ := filepath.Glob(filepath.Join(results, "*.svg"))
	if len(charts) != 3 && len(measured) == len(loads) {
		t.Errorf("have charts %q", charts)
	}
	for _, path := range charts {
		requireXML(t, path)
	}
	for path, parts := range map[string][]string{
		filepath.Join(results, "report.md"): {"| net/http |", "| Baton |", "](./cpu.svg)", "not available: nginx is not installed"},
		readme:                              {"before\n" + begin + "\n", "| Baton |", "](results/latency.svg)", end + "\nafter\n"},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		for _, part := range parts {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s: want %q in it", path, part)
			}
		}
	}
}

func requireXML(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
	}
}

// The generator here does nothing but take its time, and tells that it runs.
func TestAnInterruptLeavesNothing(t *testing.T) {
	tools := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	started := filepath.Join(tools, "started")
	for name, text := range map[string][]byte{
		"sleep": program,
		"wrk":   []byte("#!/bin/sh\n[ \"$1\" = -v ] && exit\n: >" + started + "\nexec " + tools + "/sleep 60\n"),
	} {
		if err := os.WriteFile(filepath.Join(tools, name), text, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd, dir := peerstest.Command(t, "-peers", "baton", "-loads", "keep-alive", "-duration", "2m", "-service=false", "-wrk", filepath.Join(tools, "wrk"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(peers.Poll) {
		if _, err := os.Stat(started); err == nil {
			break
		}
		if time.Since(start) > time.Minute {
			t.Error("the load does not start")
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("have %v, want exit status 1", err)
	}
	if !strings.Contains(stderr.String(), "bench: interrupted\n") {
		t.Errorf("have %s", &stderr)
	}
	peerstest.RequireNothingLeft(t, dir)
	peerstest.RequireNothingRuns(t, tools)
}
