//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/peers"
)

// command builds compare and prepares to run it, with its files in dir. It is
// interrupted at the end of the test at the latest, as by Ctrl-C, for killed it
// could end nothing that it has started.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "compare")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "") // short: sockets will be in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, bin, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return cmd, dir
}

// requireNothingLeft looks for files, and for processes that run a file in dir.
func requireNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, dir+"/") {
			t.Errorf("%s still runs %s", link, exe)
		}
	}
}

func TestBatonLosesNothingInTheComparison(t *testing.T) {
	args := "-duration 2s -every 500ms -slow-for 300ms -stream-for 1s -pm2 /no/such/pm2"
	_, noH2load := exec.LookPath("h2load")
	if noH2load == nil {
		args += " -h2load"
	}
	cmd, dir := command(t, strings.Fields(args)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	t.Logf("%v\n%s%s", err, &stderr, &stdout)
	if err != nil {
		t.Fatal(err)
	}
	requireNothingLeft(t, dir)

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
	cmd, dir := command(t, "-peers", "baton-upgrade", "-duration", "1m", "-every", "100ms")
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
	requireNothingLeft(t, dir)
}
