//go:build unix

package workers

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// taskEnv makes the test binary run as another process with a task of its own.
const taskEnv = "WORKERS_TEST_TASK"

func TestMain(m *testing.M) {
	if task := os.Getenv(taskEnv); task != "" {
		os.Exit(runTask(task))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // for the processes that tests start
	before := openFiles()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		for fd, target := range leaked(before) {
			fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns what is open and was not before. What other goroutines are
// about to close gets the time for it.
func leaked(before map[string]string) map[string]string {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		now := openFiles()
		for fd := range before {
			delete(now, fd)
		}
		if len(now) == 0 || time.Now().After(deadline) {
			return now
		}
	}
}

// openFiles is empty where there is no /proc. The runtime's poller is left
// out: it comes with its first use and stays.
func openFiles() map[string]string {
	files := make(map[string]string)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			files[e.Name()] = target
		}
	}
	return files
}
