package workers

import (
	"errors"
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

func threadMarked(t *testing.T) bool {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Error(err)
	}
	return strings.Contains(string(b), "NoNewPrivs:\t1")
}

// The process itself keeps what it may.
func TestConfinementLeavesNoTrace(t *testing.T) {
	before := markedThreads(t)
	for range 50 {
		c := newCell()
		for range 4 {
			marked := false
			if err := c.confined(func() error { marked = threadMarked(t); return nil }); err != nil || !marked {
				t.Fatalf("marked: %v, %v", marked, err)
			}
			if n := markedThreads(t); n > before+50 {
				t.Fatalf("%d threads are marked", n)
			}
		}
		c.close()
		if err := c.confined(func() error { return nil }); !errors.Is(err, ErrStopped) {
			t.Fatalf("after its end: %v", err)
		}
	}
	for end := time.Now().Add(10 * time.Second); markedThreads(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d threads are left marked, %d before", markedThreads(t), before)
		}
	}
}
