//go:build linux

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	long = flag.Bool("long", os.Getenv("BATON_TEST_LONG") == "1", "run the long tier")

	rootDir string // of everything that the tests write
	testapp string // the test application without a behaviour
)

// tier returns what fits the tier that runs.
func tier[T any](short, longer T) T {
	if *long {
		return longer
	}
	return short
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(guardEnv); dir != "" {
		runGuard(dir)
		return
	}
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	// Workers whose master has gone become ours, and not init's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "subreaper:", err)
		return 1
	}
	var err error
	// Not t.TempDir: the path of a socket may have 107 bytes.
	if rootDir, err = os.MkdirTemp("", "baton-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	release, err := startGuard()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		return 1
	}
	defer release()
	if err := buildTestapp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go reaper.run()

	code := m.Run()
	if left := leftProcesses(5 * time.Second); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: processes are left after the tests:\n%s", table(left))
		for _, p := range left {
			_ = p.kill()
		}
		return max(code, 1)
	}
	return code
}

// testappEnv has the application for a test that runs in a process of its own.
const testappEnv = "BATON_TEST_APP"

func buildTestapp() error {
	if testapp = os.Getenv(testappEnv); testapp != "" {
		return nil
	}
	var err error
	testapp, err = build("./testapp")
	return err
}

// build builds a program, with -race if the tests are.
func build(pkg string) (path string, err error) {
	return buildAs(filepath.Base(pkg), pkg)
}

// buildAs builds a program under another name, and with more flags.
func buildAs(name, pkg string, flags ...string) (path string, err error) {
	path = filepath.Join(rootDir, name)
	args := append([]string{"build", "-ldflags=-s -w", "-o", path}, flags...)
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, pkg)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// leftProcesses waits until no process of any service is left, and returns
// those that are at the end of the time.
func leftProcesses(bound time.Duration) []process {
	for deadline := time.Now().Add(bound); ; time.Sleep(10 * time.Millisecond) {
		left := findProcesses(func(p process) bool {
			return reaper.knows(p.Session) || strings.HasPrefix(p.exe(), rootDir+"/")
		})
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}
