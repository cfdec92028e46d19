//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/control"
)

// openFiles are the descriptors of a process.
func openFiles(t *testing.T, pid int) map[int]bool {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	open := map[int]bool{}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		open[fd] = true
	}
	return open
}

// limitFiles lowers the limit of a process so that just free more descriptors
// fit, and returns what lifts it again.
func limitFiles(t *testing.T, pid, free int) (lift func()) {
	t.Helper()
	// Connections to the control socket may be about to close.
	var open map[int]bool
	same := 0
	eventually(t, waitTime, "descriptors are at rest", func() bool {
		now := openFiles(t, pid)
		if same++; !maps.Equal(now, open) {
			open, same = now, 0
		}
		return same == 4
	})
	// The kernel gives out the lowest free number, below the limit.
	limit := 0
	for ; open[limit] || free > 0; limit++ {
		if !open[limit] {
			free--
		}
	}
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	// The soft limit only: it can be lifted by anyone.
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: old.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// cpuTime is what a process has used, in steps of 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int
	for _, i := range []int{11, 12} { // utime, stime
		n, err := strconv.Atoi(f[i])
		if err != nil {
			t.Fatalf("stat of process %d: %q", pid, stat)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// requireNoSpin requires that the processes use little of the next second.
func requireNoSpin(t *testing.T, pids ...int) {
	t.Helper()
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		before[i] = cpuTime(t, pid)
	}
	<-time.After(time.Second)
	for i, pid := range pids {
		used := cpuTime(t, pid) - before[i]
		t.Logf("process %d used %v of a second", pid, used)
		if used > 150*time.Millisecond {
			t.Errorf("process %d used %v of a second in which there was nothing to do for it", pid, used)
		}
	}
}

const (
	pauseLine  = "accepting paused"
	resumeLine = "accepting again"
)

func TestMasterWithoutDescriptorsWaitsForSome(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	before := s.status()
	master := before.Master.PID
	lift := limitFiles(t, master, 0)

	requests := s.openRequests(40, "/version")
	s.waitLog(pauseLine)
	requireNoSpin(t, master)
	if n := s.countLog(pauseLine); n != 1 {
		t.Errorf("the pause is told %d times", n)
	}
	if n := s.countLog(resumeLine); n != 0 {
		t.Errorf("accepted without a descriptor: %d times", n)
	}
	lift()
	requireAnswers(t, requests, waitTime)
	s.waitLog(resumeLine)
	if p, r := s.countLog(pauseLine), s.countLog(resumeLine); p != 1 || r != 1 {
		t.Errorf("%d pauses and %d resumptions are told, want one each", p, r)
	}
	st := s.status()
	checkLedger(t, st)
	if l := serving(st).Ledger; l.RefusedTotal() != 0 || l.Accepted != serving(before).Ledger.Accepted+40 {
		t.Errorf("ledger %+v", l)
	}
}

// stopWorkers stops the workers, so that the master keeps the descriptors of
// what it sends them.
func stopWorkers(s *service) (master int, ws []control.Worker) {
	s.t.Helper()
	st := s.status()
	for _, w := range serving(st).Processes {
		signalPID(s.t, w.PID, syscall.SIGSTOP)
		waitState(s.t, w.PID, "T")
	}
	return st.Master.PID, serving(st).Processes
}

// One descriptor is enough to go on, slowly. That is told once, and not with
// each connection that finds it free.
func TestMasterGoesOnWithOneDescriptor(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	master, ws := stopWorkers(s)
	limitFiles(t, master, 1)
	requests := s.openRequests(40, "/version")
	s.waitLog(pauseLine)
	for _, w := range ws {
		signalPID(t, w.PID, syscall.SIGCONT)
	}
	requireAnswers(t, requests, waitTime)
	s.waitLog(resumeLine)
	if p, r := s.countLog(pauseLine), s.countLog(resumeLine); p != 1 || r != 1 {
		t.Errorf("%d pauses and %d resumptions are told, want one each", p, r)
	}
	checkLedger(t, s.status())
}

// workerPIDs are the living processes of a slot, without asking the master.
func (s *service) workerPIDs(id string) (pids []int) {
	for _, p := range s.processes() {
		if p.Args == "app: worker "+id && p.State != "Z" {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// The descriptors of the master are with connections that stopped workers do
// not acknowledge. Nobody lifts the limit: a worker started at the limit does.
func TestWorkerIsRespawnedAtTheLimitOfTheMaster(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	master, ws := stopWorkers(s)
	limitFiles(t, master, 20)
	requests := s.openRequests(60, "/pid")
	s.waitLog(pauseLine)
	requireNoSpin(t, master)

	signalPID(t, ws[0].PID, syscall.SIGKILL)
	eventually(t, waitTime, "another worker 1.1 runs", func() bool {
		return slices.ContainsFunc(s.workerPIDs("1.1"), func(pid int) bool { return pid != ws[0].PID })
	})
	// What the other one has been sent is its own until it dies or goes on.
	signalPID(t, ws[1].PID, syscall.SIGCONT)
	pids := map[string]bool{}
	for _, a := range requireAnswers(t, requests, 20*time.Second) {
		pids[strings.TrimSpace(a.body)] = true
	}
	if pids[strconv.Itoa(ws[0].PID)] || len(pids) != 2 {
		t.Errorf("processes %v have answered; %d was killed", pids, ws[0].PID)
	}
	st := s.waitStatus("all workers serve", complete)
	checkLedger(t, st)
	if l := serving(st).Ledger; l.RefusedTotal() != 0 || l.Cut != 0 || l.Redispatched == 0 {
		t.Errorf("ledger %+v", l)
	}
	if p, r := s.countLog(pauseLine), s.countLog(resumeLine); p > r+1 || p > 5 {
		t.Errorf("%d pauses and %d resumptions are told", p, r)
	}
}

// Every descriptor that becomes free is wanted by connections in the kernel's
// queue, those of dead workers included, and still each has a successor.
func TestWorkerIsRespawnedAtTheLimitAgainAndAgain(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	master, ws := stopWorkers(s)
	limitFiles(t, master, 20)
	requests := s.openRequests(100, "/version")
	s.waitLog(pauseLine)
	// One is stopped for the whole time and takes whatever is accepted, until
	// it is passed over; the other dies, and its successors are stopped too.
	pid := ws[0].PID
	for range tier(4, 8) {
		signalPID(t, pid, syscall.SIGKILL)
		next := 0
		eventually(t, waitTime, "another worker 1.1 runs", func() bool {
			for _, p := range s.workerPIDs("1.1") {
				if p != pid {
					next = p
					signalPID(t, p, syscall.SIGSTOP)
					return true
				}
			}
			return false
		})
		pid = next
	}
	requireNoSpin(t, master)
	signalPID(t, pid, syscall.SIGCONT)
	signalPID(t, ws[1].PID, syscall.SIGCONT)
	served := 0
	for _, f := range requests {
		if _, err := f.answer(waitTime); err == nil {
			served++
		}
	}
	st := s.waitStatusFor(20*time.Second, "all workers serve", func(st control.Status) bool {
		return complete(st) && serving(st).Ledger.Pending == 0
	})
	checkLedger(t, st)
	l := serving(st).Ledger
	t.Logf("%d of %d served, ledger %+v", served, len(requests), l)
	if cut := len(requests) - served; uint64(cut) > l.Cut || l.RefusedTotal() != 0 {
		t.Errorf("%d requests were not answered, ledger %+v", cut, l)
	}
	if n := s.countLog("worker not started"); n > 0 {
		t.Errorf("%d times a worker could not be started", n)
	}
	if p, r := s.countLog(pauseLine), s.countLog(resumeLine); p > r+1 || p > 5 {
		t.Errorf("%d pauses and %d resumptions are told", p, r)
	}
}

func TestWorkerWithoutDescriptorsLeavesConnectionsToOthers(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	st := s.status()
	master, ws := st.Master.PID, serving(st).Processes
	one, two := s.connectTo("1.1"), s.connectTo("1.2")

	lift := limitFiles(t, ws[0].PID, 50)
	if n := one.number(t, "/open?n=1000"); n < 10 || n > 50 {
		t.Fatalf("the worker could open %d files, the limit leaves it 50", n)
	}
	for range 5 {
		for _, a := range requireAnswers(t, s.openRequests(40, "/version"), waitTime) {
			if a.worker != "1.2" {
				t.Fatalf("worker %s answers without a descriptor for the connection", a.worker)
			}
		}
	}
	requireNoSpin(t, master, ws[0].PID, ws[1].PID)

	// Now none has any: connections wait.
	liftTwo := limitFiles(t, ws[1].PID, 50)
	if n := two.number(t, "/open?n=1000"); n < 10 || n > 50 {
		t.Fatalf("the worker could open %d files, the limit leaves it 50", n)
	}
	requests := s.openRequests(40, "/version")
	requireNoSpin(t, master, ws[0].PID, ws[1].PID)
	checkLedger(t, s.status())

	one.number(t, "/release")
	for _, a := range requireAnswers(t, requests, waitTime) {
		if a.worker != "1.1" {
			t.Fatalf("worker %s answers without a descriptor for the connection", a.worker)
		}
	}
	two.number(t, "/release")
	lift()
	liftTwo()
	eventually(t, waitTime, "both workers take part again", func() bool {
		seen := map[string]int{}
		for range 10 {
			seen[s.get("/version").worker]++
		}
		return seen["1.1"] == 5 && seen["1.2"] == 5
	})
	st = s.status()
	checkLedger(t, st)
	for i, w := range serving(st).Processes {
		if w.PID != ws[i].PID || w.State != control.WorkerServing {
			t.Errorf("worker %+v, was %+v", w, ws[i])
		}
	}
	if l := serving(st).Ledger; l.RefusedTotal() != 0 || l.Cut != 0 || l.Redispatched == 0 {
		t.Errorf("ledger %+v", l)
	}
}
