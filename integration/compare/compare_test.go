//go:build linux

package main

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/peers"
	"github.com/baton-go/baton/integration/peers/peerstest"
)

func TestBatonLosesNothingInTheComparison(t *testing.T) {
	args := "-duration 2s -every 500ms -slow-for 300ms -stream-for 1s -pm2 /no/such/pm2"
	_, noH2load := exec.LookPath("h2load")
	if noH2load == nil {
		args += " -h2load"
	}
	cmd, dir := peerstest.Command(t, strings.Fields(args)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	t.Logf("%v\n%s%s", err, &stderr, &stdout)
	if err != nil {
		t.Fatal(err)
	}
	peerstest.RequireNothingLeft(t, dir)

	cells := make(map[string][]string)
	for line := range strings.Lines(stdout.String()) {
		if f := strings.Split(line, " | "); len(f) > 1 {
			cells[strings.TrimPrefix(f[0], "| ")] = f
		}
	}
	number := func(title string, column int) int {
		if len(cells[title]) <= column {
			t.Fatalf("there is no line of %s", title)
		}
		digits, _, _ := strings.Cut(cells[title][column], ",")
		n, err := strconv.Atoi(digits)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const deploys, requests, lost = 1, 2, 3
	for _, p := range known[:2] {
		if number(p.title, requests) == 0 || number(p.title, deploys) == 0 || number(p.title, lost) != 0 {
			t.Errorf("%s: want requests, deploys, and nothing lost", p.title)
		}
	}
	for _, p := range known[2:] {
		f := cells[p.title]
		switch {
		case len(f) < 2:
			t.Errorf("there is no line of %s", p.title)
		case !strings.Contains(f[1], "left out"):
			if number(p.title, requests) == 0 || number(p.title, deploys) == 0 {
				t.Errorf("%s: want requests and deploys", p.title)
			}
		case p.name == "tableflip" || !strings.Contains(f[1], " install"):
			t.Errorf("%s: want it measured, or said how to get it, have %q", p.title, f[1])
		}
	}
	if noH2load == nil && !strings.Contains(stdout.String(), "\nrequests: ") {
		t.Error("want what h2load says")
	}
}

func TestAnInterruptLeavesNothing(t *testing.T) {
	cmd, dir := peerstest.Command(t, "-peers", "baton-upgrade", "-duration", "1m", "-every", "100ms")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.Contains(lines.Text(), "under load") {
		t.Errorf("have %q", lines.Text())
	}
	// The server is up, and has perhaps been deployed, when its socket is there.
	for ctl, start := filepath.Join(dir, "*", "*", "run", "control.sock"), time.Now(); ; time.Sleep(peers.Poll) {
		if found, _ := filepath.Glob(ctl); len(found) > 0 {
			break
		}
		if time.Since(start) > time.Minute {
			t.Error("the server does not start")
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
		t.Log(lines.Text())
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("have %v, want exit status 1", err)
	}
	peerstest.RequireNothingLeft(t, dir)
}
