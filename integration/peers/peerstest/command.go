//go:build linux

// Package peerstest runs the comparisons of this repository in their tests.
package peerstest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Command builds the command of the test's directory and prepares to run it,
// with its files in dir. It is interrupted at the end of the test at the latest,
// as by Ctrl-C, for killed it could end nothing that it has started.
func Command(t *testing.T, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "command")
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

// RequireNothingLeft looks for files, and for processes that run a file in dir.
func RequireNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	RequireNothingRuns(t, dir)
}

// RequireNothingRuns looks for processes that run a file in dir.
func RequireNothingRuns(t *testing.T, dir string) {
	t.Helper()
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, dir+"/") {
			t.Errorf("%s still runs %s", link, exe)
		}
	}
}
