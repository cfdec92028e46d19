package workers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// markedThreads counts the threads of this process that cannot gain privileges.
func markedThreads(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "NoNewPrivs:\t1") {
			n++
		}
	}
	return n
}

// The process itself keeps what it may.
func TestConfinementLeavesNoTrace(t *testing.T) {
	before := markedThreads(t)
	for range 200 {
		if err := confined(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); markedThreads(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d threads are left marked, %d before", markedThreads(t), before)
		}
	}
}
