package framework

import (
	"os"
	"testing"
)

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

func TestSpareThreadsAreKept(t *testing.T) {
	n := threads(t) + 8
	makeSpareThreads(n)
	if have := threads(t); have < n {
		t.Errorf("%d threads, want %d", have, n)
	}
	makeSpareThreads(n)
	if have := threads(t); have > n+8 { // those of before serve again
		t.Errorf("%d threads", have)
	}
}
