//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/control"
)

// stopProcess stops a process, and continues it at the latest at the end of the
// test: a stopped one would not follow an order to end.
func stopProcess(t *testing.T, pid int) (resume func()) {
	t.Helper()
	signalPID(t, pid, syscall.SIGSTOP)
	p, err := readProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.signal(syscall.SIGCONT) })
	return func() {
		t.Helper()
		signalPID(t, pid, syscall.SIGCONT)
	}
}

// stateOf returns the state of the worker with that pid, "" if there is none.
func stateOf(st control.Status, pid int) string {
	for _, g := range st.Generations {
		for _, w := range g.Processes {
			if w.PID == pid {
				return w.State
			}
		}
	}
	return ""
}

func (s *service) waitWorkerState(pid int, state string) control.Status {
	s.t.Helper()
	return s.waitStatus(fmt.Sprintf("worker %d is %s", pid, state), func(st control.Status) bool { return stateOf(st, pid) == state })
}

// pidsOf returns the workers' pids, by slot.
func pidsOf(ws []control.Worker) []int {
	pids := make([]int, len(ws))
	for i, w := range ws {
		pids[i] = w.PID
	}
	return pids
}

// requireNobodyKilled checks that the workers are who they were.
func requireNobodyKilled(s *service, before []control.Worker) {
	s.t.Helper()
	if now := pidsOf(s.workers()); !slices.Equal(now, pidsOf(before)) {
		s.t.Errorf("workers %v, were %v", now, pidsOf(before))
	}
	if n := s.countLog("worker killed") + s.countLog("worker died"); n > 0 {
		s.t.Errorf("%d workers were killed or died", n)
	}
}

// short connections, and a few kept ones
func hangLoad() load.Config {
	return load.Config{
		Plans:          []load.Plan{{Class: load.PerConn, Clients: 4}, {Class: load.KeepAlive, Clients: 4}},
		RequestTimeout: 20 * time.Second,
	}
}

func TestStoppedWorkerIsPassedOverAndServesAgain(t *testing.T) {
	t.Parallel()                              // it waits more than it works
	s := newService(t, appConfig{Workers: 3}) // HangTimeout is 30 s
	before := s.workers()
	finish := s.start(hangLoad())
	stopped := before[1]
	resume := stopProcess(t, stopped.PID)
	end := time.After(tier(2*time.Second, 5*time.Second))
	s.waitWorkerState(stopped.PID, control.WorkerStalled)
	if err := s.ready(); err != nil {
		t.Errorf("not ready though two of three workers serve: %v", err)
	}
	answered := map[string]int{}
	for range 30 {
		answered[s.get("/").worker]++
	}
	if answered[stopped.ID] > 0 || len(answered) != 2 {
		t.Errorf("answers by worker: %v, and %s is stopped", answered, stopped.ID)
	}
	<-end
	resume()
	s.waitStatus("all serve", complete)
	clear(answered)
	for range 30 {
		answered[s.get("/").worker]++
	}
	if len(answered) != 3 {
		t.Errorf("answers by worker: %v, and all serve", answered)
	}
	// What the stopped one had been given meanwhile was late and not lost.
	requireNothingLost(s, finish())
	requireNobodyKilled(s, before)
	s.waitLog("worker does not answer, it gets no connections worker=" + stopped.ID)
	s.waitLog("worker answers again worker=" + stopped.ID)
	requireSettled(s)
}

func TestWorkerStoppedBeyondHangTimeoutIsReplaced(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Workers: 2, Options: appOptions{HangTimeout: new(tier(time.Second, 2*time.Second))}})
	others := s.start(load.Config{Plans: []load.Plan{{Class: load.PerConn, Clients: 4}}, RequestTimeout: 20 * time.Second})
	hung := s.workers()[0]
	stopProcess(t, hung.PID)
	now := waitReplaced(s, hung)
	if !strings.Contains(now.LastExit, "signal: killed") || !strings.Contains(now.LastExit, "no answer for") || now.Restarts != 1 {
		t.Errorf("its successor: %+v", now)
	}
	s.waitLog(fmt.Sprintf("worker killed worker=%s pid=%d reason=\"no answer for ", hung.ID, hung.PID))
	// Unacknowledged connections go to others; only what it had taken is lost,
	// and that is in the ledger.
	r := others()
	t.Logf("\n%s", r)
	st := s.waitStatus("nothing is pending", func(st control.Status) bool { return complete(st) && serving(st).Ledger.Pending == 0 })
	if cut := int(serving(st).Ledger.Cut); r.Lost() > cut {
		t.Errorf("%d requests lost, %d were cut", r.Lost(), cut)
	}
	checkLedger(t, st)
	s.waitProcesses(3)
	if n := s.countLog("worker killed"); n != 1 {
		t.Errorf("%d workers were killed", n)
	}
}

// HangTimeout(0) is for debuggers: a worker that stands at a breakpoint is
// passed over for as long as it stands there.
func TestHangTimeoutOfZeroKillsNobody(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Workers: 2, Options: appOptions{HangTimeout: new(time.Duration(0))}})
	before := s.workers()
	resume := stopProcess(t, before[0].PID)
	s.waitWorkerState(before[0].PID, control.WorkerStalled)
	<-time.After(tier(2*time.Second, 35*time.Second)) // the default is 30 s
	resume()
	s.waitStatus("all serve", complete)
	requireNobodyKilled(s, before)
}

func TestWholePoolStoppedAndContinuedLosesNothing(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Workers: 3})
	before := s.workers()
	finish := s.start(hangLoad())
	var resume []func()
	for _, w := range before {
		resume = append(resume, stopProcess(t, w.PID))
	}
	end := time.After(tier(2*time.Second, 5*time.Second))
	for _, w := range before {
		s.waitWorkerState(w.PID, control.WorkerStalled)
	}
	if err := s.ready(); err == nil {
		t.Error("ready though nobody serves")
	}
	<-end
	for _, f := range resume {
		f()
	}
	s.waitStatus("all serve", complete)
	requireNothingLost(s, finish())
	requireNobodyKilled(s, before)
	if err := s.ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	requireSettled(s)
}

// A master that did not run itself knows nothing of its workers' silence: not
// when it alone was stopped, as by a debugger, nor when everything was, as with
// the machine.
func TestMasterStoppedBeyondHangTimeoutKillsNobody(t *testing.T) {
	t.Parallel() // it waits more than it works
	const hangTimeout = 1500 * time.Millisecond
	for _, tt := range []struct {
		name string
		all  bool
	}{{"the master", false}, {"all", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, appConfig{Workers: 2, Options: appOptions{HangTimeout: new(hangTimeout)}})
			master, before := s.masterPID(), s.workers()
			finish := s.start(hangLoad())
			stop := []int{master}
			if tt.all {
				stop = append(stop, pidsOf(before)...)
			}
			var resume []func()
			for _, pid := range stop {
				resume = append(resume, stopProcess(t, pid))
			}
			<-time.After(tier(2*hangTimeout, 4*hangTimeout))
			for _, f := range resume {
				f()
			}
			// As long as it takes to dump and kill one that is taken for hung.
			<-time.After(hangTimeout + 1500*time.Millisecond)
			requireNothingLost(s, finish())
			if now := s.masterPID(); now != master {
				t.Errorf("master %d, was %d", now, master)
			}
			requireNobodyKilled(s, before)
			if n := s.countLog("SIGQUIT"); n > 0 {
				t.Errorf("%d dumps of goroutines in the log", n)
			}
			requireSettled(s)
		})
	}
}

// Beyond HangTimeout one is killed after the other, and those waiting in the
// queue are served by the new ones.
func TestWholePoolStoppedForGoodIsReplaced(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Workers: 2, Options: appOptions{HangTimeout: new(time.Second)}})
	before := s.workers()
	for _, w := range before {
		stopProcess(t, w.PID)
	}
	for _, w := range before {
		s.waitWorkerState(w.PID, control.WorkerStalled)
	}
	answered := make(chan error, 20)
	for range cap(answered) {
		go func() {
			a, err := ask(s.addr, "/", 30*time.Second)
			if err == nil && a.status != 200 {
				err = fmt.Errorf("status %d", a.status)
			}
			answered <- err
		}()
	}
	for _, w := range before {
		waitReplaced(s, w)
	}
	for range cap(answered) {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	checkLedger(t, s.waitStatus("all serve", complete))
}

// ready asks /readyz.
func (s *service) ready() error {
	ctx, cancel := deadline(waitTime)
	defer cancel()
	return s.client.Ready(ctx)
}
