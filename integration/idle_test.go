//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

var sleeps = regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\s+(\d+)$`)

// sleptOften is how often the threads of a process have gone to sleep.
func sleptOften(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("threads of %d: %v, %v", pid, tasks, err)
	}
	sum := 0
	for _, path := range tasks {
		// A thread that ends meanwhile takes its share along.
		text, _ := os.ReadFile(path)
		if m := sleeps.FindSubmatch(text); m != nil {
			n, _ := strconv.Atoi(string(m[1]))
			sum += n
		}
	}
	return sum
}

// A service that nobody uses leaves the CPUs asleep.
func TestIdleServiceHardlyWakes(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Workers: 2})
	pids := append(pidsOf(s.workers()), s.masterPID())
	// What is measured is a rate, so the time has to pass. Asking the service
	// for anything meanwhile would wake it.
	const start, window = 2 * time.Second, 7 * time.Second
	<-time.After(start)
	before := make(map[int]int)
	for _, pid := range pids {
		before[pid] = sleptOften(t, pid)
	}
	<-time.After(window)
	for _, pid := range pids {
		rate := float64(sleptOften(t, pid)-before[pid]) / window.Seconds()
		t.Logf("process %d wakes %.1f times a second", pid, rate)
		if rate > 10 { // 25 are those of two looks a second
			t.Errorf("process %d wakes %.1f times a second", pid, rate)
		}
	}
}
