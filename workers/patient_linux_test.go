package workers

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// policies returns how often each scheduling policy occurs among the threads of
// this process.
func policies(t *testing.T) map[uint32]int {
	t.Helper()
	found := map[uint32]int{}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if a, err := unix.SchedGetAttr(tid, 0); err == nil {
			found[a.Policy]++
		}
	}
	return found
}

// TestPatienceIsTheMastersAlone runs in a process of its own: it changes it.
func TestPatienceIsTheMastersAlone(t *testing.T) {
	const marker = "BATON_TEST_PATIENT"
	if os.Getenv(marker) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), marker+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if n := policies(t); n[unix.SCHED_NORMAL] == 0 || n[unix.SCHED_BATCH] > 0 {
		t.Fatalf("threads by policy: %v", n)
	}
	BePatient()
	var all sync.WaitGroup
	for range 20 { // threads that are made later are patient, too
		all.Go(func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: int64(20 * time.Millisecond)}, nil) })
	}
	all.Wait()
	if n := policies(t); n[unix.SCHED_BATCH] < 10 || len(n) != 1 {
		t.Errorf("threads by policy: %v, want all %d", n, unix.SCHED_BATCH)
	}
	err := impatiently(func() error {
		cmd := exec.Command("cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		a, err := unix.SchedGetAttr(cmd.Process.Pid, 0)
		in.Close()
		if err == nil && a.Policy != unix.SCHED_NORMAL {
			t.Errorf("a child has policy %d", a.Policy)
		}
		_ = cmd.Wait()
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if n := policies(t); len(n) != 1 {
		t.Errorf("threads by policy afterwards: %v", n)
	}
}
