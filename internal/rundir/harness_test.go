//go:build unix

package rundir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience bounds what must happen; a test that meets it has failed.
const patience = 10 * time.Second

// roleEnv makes the test binary play another process: what it does in dirEnv.
const (
	roleEnv = "RUNDIR_TEST_ROLE"
	dirEnv  = "RUNDIR_TEST_DIR"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(role, os.Getenv(dirEnv)); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// play holds the lock, which it took or adopted from fd 3, until stdin ends.
func play(role, path string) error {
	d, err := Open(path)
	if err != nil {
		return err
	}
	var l *Lock
	switch role {
	case "hold":
		l, err = d.Lock()
	case "adopt":
		if l, err = AdoptLock(d, os.NewFile(3, "inherited lock")); err == nil {
			err = l.Claim()
		}
	default:
		err = errors.New("no such role: " + role)
	}
	if err != nil {
		return err
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return l.Release()
}

// child is this test binary in another role.
type child struct {
	*exec.Cmd
	in    io.WriteCloser
	lines chan string // what it prints; closed at the end of its output
}

func spawn(t *testing.T, role, dir string, files ...*os.File) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0]), lines: make(chan string, 16)}
	// A binary built with -race sleeps for a second at its end, to see more.
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", roleEnv+"="+role, dirEnv+"="+dir)
	c.Stderr = os.Stderr
	c.ExtraFiles = files
	var err error
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

// says fails the test unless the child's next line contains want.
func (c *child) says(t *testing.T, want string) {
	t.Helper()
	select {
	case line, ok := <-c.lines:
		if !ok || !strings.Contains(line, want) {
			t.Fatalf("child %d: have %q, want %q", c.Process.Pid, line, want)
		}
	case <-time.After(patience):
		t.Fatalf("child %d: silent for %v, want %q", c.Process.Pid, patience, want)
	}
}

// end lets the child release its lock and waits for it.
func (c *child) end(t *testing.T) {
	t.Helper()
	c.in.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("child %d: %v", c.Process.Pid, err)
	}
}

// open makes a runtime directory for a test.
func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(private(t), "run"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// private is a directory that the checks accept as a parent, whatever the umask
// of who runs the tests. Its name is short, as a socket's path has to be.
func private(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rundir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mkdir(t *testing.T, mode os.FileMode, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.MkdirAll(p, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func env(kv map[string]string) func(string) string {
	return func(k string) string { return kv[k] }
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pidLine(pid int) string { return strconv.Itoa(pid) + "\n" }
