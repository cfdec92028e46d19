//go:build linux

package integration

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// timedLoad is three clients with a connection for each request, and keeps
// every latency: a percentile says more of a master that is held up than a
// maximum.
type timedLoad struct {
	mu       sync.Mutex
	took     []time.Duration
	failures []string
	stop     chan struct{}
	stopped  bool
	clients  sync.WaitGroup
}

// startTimed starts the load; finish ends it and may be called again.
func startTimed(s *service) *timedLoad {
	l := &timedLoad{stop: make(chan struct{})}
	for range 3 {
		l.clients.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-l.stop:
					return
				case <-tick.C:
				}
				began := time.Now()
				a, err := s.tryGet("/")
				if err == nil && a.status != 200 {
					err = fmt.Errorf("status %d", a.status)
				}
				l.add(time.Since(began), err)
			}
		})
	}
	s.t.Cleanup(func() { l.finish() })
	return l
}

func (l *timedLoad) add(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures = append(l.failures, err.Error())
		return
	}
	l.took = append(l.took, took)
}

// answered is how many requests have been.
func (l *timedLoad) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.took)
}

// enough requests to compare two loads by.
const enough = 150

// waitAnswered waits until there are enough.
func (l *timedLoad) waitAnswered(t *testing.T) {
	t.Helper()
	eventually(t, waitTime, "requests are answered", func() bool { return l.answered() >= enough })
}

func (l *timedLoad) finish() *timedLoad {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		close(l.stop)
	}
	l.mu.Unlock()
	l.clients.Wait()
	slices.Sort(l.took)
	return l
}

func (l *timedLoad) quantile(q float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	return l.took[min(int(q*float64(len(l.took))), len(l.took)-1)]
}

func (l *timedLoad) String() string {
	return fmt.Sprintf("%d answered, %d failed, p50 %v, p99 %v, max %v", len(l.took), len(l.failures),
		l.quantile(0.5).Round(time.Microsecond), l.quantile(0.99).Round(time.Microsecond), l.quantile(1).Round(time.Microsecond))
}

// slack is how much worse a latency may be than the like in the same run: the
// cores are few, and other tests take their part. What these tests are after,
// a lingering close or a queue that nobody reads, is hundreds of times.
const (
	slack     = 20
	tailSlack = 50 // of the percentiles that a single pause of the machine decides
)

// requireNoDelay compares a load with one that ran before.
func requireNoDelay(t *testing.T, before, during *timedLoad) {
	t.Helper()
	t.Logf("before: %v", before)
	t.Logf("during: %v", during)
	if n := len(before.failures) + len(during.failures); n > 0 {
		t.Errorf("%d requests failed: %q %q", n, before.failures[:min(len(before.failures), 5)], during.failures[:min(len(during.failures), 5)])
	}
	if len(before.took) < enough || len(during.took) < enough {
		t.Fatalf("%d and %d requests were answered: too few to compare", len(before.took), len(during.took))
	}
	for _, limit := range []struct {
		q     float64
		slack time.Duration
	}{{0.5, slack}, {0.99, tailSlack}, {1, tailSlack}} {
		if b, d := before.quantile(limit.q), during.quantile(limit.q); d > limit.slack*b {
			t.Errorf("quantile %v was %v, and %v before", limit.q, d, b)
		}
	}
}

// workerCalled returns the worker that has this id and serves.
func workerCalled(s *service, id string) control.Worker {
	s.t.Helper()
	for _, w := range s.workers() {
		if w.ID == id && w.State == control.WorkerServing {
			return w
		}
	}
	s.t.Fatalf("no worker %s serves", id)
	return control.Worker{}
}

// waitReplaced waits until the process is gone and another serves in its slot.
func waitReplaced(s *service, old control.Worker) control.Worker {
	s.t.Helper()
	var now control.Worker
	s.waitStatus(fmt.Sprintf("worker %s, pid %d, is replaced", old.ID, old.PID), func(st control.Status) bool {
		for _, g := range st.Generations {
			for _, w := range g.Processes {
				switch {
				case w.PID == old.PID:
					return false
				case w.ID == old.ID && w.State == control.WorkerServing:
					now = w
				}
			}
		}
		return now.PID != 0
	})
	return now
}

// attack has one worker attack its master, and returns which one did.
func attack(s *service, name string) control.Worker {
	s.t.Helper()
	before := s.workers()
	a := s.get("/hostile?do=" + name)
	if a.status != 200 {
		s.t.Fatalf("attack %s: %d %s", name, a.status, a.body)
	}
	for _, w := range before {
		if w.ID == a.worker {
			return w
		}
	}
	s.t.Fatalf("attack %s: by worker %s, which was not there: %+v", name, a.worker, before)
	return control.Worker{}
}

// mostGrowthKB is what a master may take more after an attack: much less than
// the attacks send, and more than a heap varies by. The race detector keeps a
// multiple of that.
func mostGrowthKB() int {
	if raceEnabled {
		return 256 << 10
	}
	return 48 << 10
}

// requireUnharmed checks that the master is the same one and holds no more
// than before.
func requireUnharmed(s *service, before control.Status, rss int) {
	s.t.Helper()
	st := s.waitStatus("the master's descriptors and goroutines are as before", func(st control.Status) bool {
		return st.State == control.StateServing && len(st.Generations) == 1 &&
			len(st.Generations[0].Processes) == st.Generations[0].Workers &&
			st.Master.FDs <= before.Master.FDs+2 && st.Master.Goroutines <= before.Master.Goroutines+4
	})
	if st.Master.PID != before.Master.PID {
		s.t.Errorf("master %d, was %d", st.Master.PID, before.Master.PID)
	}
	if now := residentKB(s.t, st.Master.PID); now > rss+mostGrowthKB() {
		s.t.Errorf("the master takes %d KiB, was %d", now, rss)
	}
	checkLedger(s.t, st)
	s.waitProcesses(1 + len(st.Generations[0].Processes))
}

// politely replaces workers as the attacks do, but by TERM, under a load that
// it returns: what a start of a process costs its neighbours is no part of what
// an attack costs them.
func politely(s *service) *timedLoad {
	s.t.Helper()
	l := startTimed(s)
	for l.answered() < enough {
		w := workerCalled(s, s.get("/").worker)
		signalPID(s.t, w.PID, syscall.SIGTERM)
		waitReplaced(s, w)
	}
	return l.finish()
}

func TestHostileWorkerIsReplacedAndNobodyWaitsForIt(t *testing.T) {
	s := newService(t, appConfig{Workers: 3})
	st := s.status()
	names := []string{"garbage", "oversize", "wrong-fds", "linger", "absurd-acks", "absurd-report", "absurd-returns", "unknown"}
	before := politely(s)
	rss := residentKB(t, st.Master.PID)

	during := startTimed(s)
	count := 0
	for during.answered() < enough || count == 0 {
		for _, name := range names {
			w := attack(s, name)
			count++
			s.waitLog(fmt.Sprintf("worker breaks the protocol, it is replaced worker=%s pid=%d ", w.ID, w.PID))
			waitReplaced(s, w)
		}
	}
	requireNoDelay(t, before, during.finish())
	if n := s.countLog("worker breaks the protocol"); n != count {
		t.Errorf("%d lines of a broken protocol for %d attacks", n, count)
	}
	if n := s.countLog("worker killed"); n > 0 {
		t.Errorf("%d workers were killed that would have ended by themselves", n)
	}
	requireUnharmed(s, st, rss)
}

// A worker that broke the protocol finishes what it has.
func TestHostileWorkerFinishesItsRequests(t *testing.T) {
	s := newService(t, appConfig{Workers: 2})
	slow := askSlow(s, time.Second)
	w := slow.worker(s)
	for attack(s, "garbage").PID != w.PID {
	}
	waitReplaced(s, w)
	slow.requireAnswer(t, w.ID)
}

// One that goes on, and would not end for the request that it still has, is
// killed.
func TestFloodingWorkerIsKilledAndNobodyWaitsForIt(t *testing.T) {
	for _, name := range []string{"flood-errors", "flood-files", "flood-returns"} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Workers: 3})
			st := s.status()
			before := politely(s)
			rss := residentKB(t, st.Master.PID)
			for range 3 { // one each
				askSlow(s, time.Minute)
			}

			watch := watchMaster(t, st.Master.PID)
			during := startTimed(s)
			w := attack(s, name)
			s.waitLog(fmt.Sprintf("worker killed worker=%s pid=%d reason=\"floods its master with errors", w.ID, w.PID))
			waitReplaced(s, w)
			during.waitAnswered(t)
			during.finish()
			watch.requireBounded()
			// What it had acknowledged died with it, and is in the ledger.
			if cut := int(s.serving().Ledger.Cut); cut < 1 || len(during.failures) > cut {
				t.Errorf("%d requests failed, %d were cut: %q", len(during.failures), cut, during.failures)
			}
			during.failures = nil
			requireNoDelay(t, before, during)
			requireUnharmed(s, st, rss)
		})
	}
}

// 20,000 messages that mean nothing are no error, and cost the others nothing.
func TestFloodOfAnswersHoldsUpNobody(t *testing.T) {
	s := newService(t, appConfig{Workers: 3})
	st := s.status()
	before := politely(s)
	rss := residentKB(t, st.Master.PID)

	during := startTimed(s)
	for range 3 {
		attack(s, "flood")
	}
	during.waitAnswered(t)
	requireNoDelay(t, before, during.finish())
	if n := s.countLog("worker killed") + s.countLog("worker died"); n > 0 {
		t.Errorf("%d workers were killed or died", n)
	}
	requireUnharmed(s, st, rss)
}

// Messages that the pool acts on come in by the ten thousands: it still
// answers, replaces the worker that sends them, and reloads.
func TestFloodOfOrdersLeavesTheMasterResponsive(t *testing.T) {
	s := newService(t, appConfig{Workers: 2})
	st := s.status()
	rss := residentKB(t, st.Master.PID)
	slow := askSlow(s, tier(time.Second, 5*time.Second)) // it cannot leave before this
	w := slow.worker(s)
	for attack(s, "flood-leave").PID != w.PID {
	}
	if v := s.reload(); !v.OK {
		t.Errorf("reload: %+v", v)
	}
	slow.requireAnswer(t, w.ID)
	requireUnharmed(s, st, rss)
}

// A worker that has ended its socket can be told nothing: it is given time and
// killed, and what it holds unacknowledged is served by others.
func TestWorkerThatHangsUpIsReplaced(t *testing.T) {
	s := newService(t, appConfig{Workers: 2, Options: appOptions{KillTimeout: new(500 * time.Millisecond)}})
	st := s.status()
	rss := residentKB(t, st.Master.PID)
	during := startTimed(s)
	w := attack(s, "shutdown")
	waitReplaced(s, w)
	during.waitAnswered(t)
	during.finish()
	if len(during.failures) > 0 {
		t.Errorf("%d requests failed: %q", len(during.failures), during.failures)
	}
	requireUnharmed(s, st, rss)
}

// The master's close of a connection can be the last one, and then waits for as
// long as a hostile worker has set it to linger. Nothing may wait for that: not
// the end of that worker, nor its successor.
func TestLingeringCloseDoesNotHoldUpTheSuccessor(t *testing.T) {
	s := newService(t, appConfig{Workers: 1})
	st := s.status()
	rss := residentKB(t, st.Master.PID)
	w := attack(s, "linger-ack")
	s.waitStatus("the worker has died of its attack", func(control.Status) bool {
		f, err := dialService(s.addr) // and it is not read from
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.vanish)
		p, err := readProcess(w.PID)
		return err != nil || p.State == "Z"
	})
	now := waitReplaced(s, w)
	if now.LastExit != "exit status 7" {
		t.Errorf("its successor: %+v", now)
	}
	if a := s.get("/"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	requireUnharmed(s, st, rss)
}

// slowRequest is one that a worker has.
type slowRequest struct {
	done chan struct{}
	a    answer
	err  error
}

// askSlow sends one, and returns once a worker has taken it.
func askSlow(s *service, d time.Duration) *slowRequest {
	s.t.Helper()
	q := &slowRequest{done: make(chan struct{})}
	taken := s.serving().Ledger.Acknowledged
	go func() {
		defer close(q.done)
		q.a, q.err = ask(s.addr, "/slow?d="+d.String(), d+waitTime)
	}()
	s.waitStatus("the slow request is taken", func(st control.Status) bool {
		g := serving(st)
		return g != nil && g.Ledger.Acknowledged > taken
	})
	return q
}

// worker returns who has it: the only one that has a connection open.
func (q *slowRequest) worker(s *service) control.Worker {
	s.t.Helper()
	var w control.Worker
	s.waitStatus("one worker has the slow request, and nothing else is open", func(st control.Status) bool {
		g := serving(st)
		if g == nil {
			return false
		}
		open := int64(0)
		for _, p := range g.Processes {
			if open += p.Open; p.Open > 0 {
				w = p
			}
		}
		return open == 1
	})
	return w
}

// requireAnswer waits for the answer, which must be this worker's.
func (q *slowRequest) requireAnswer(t *testing.T, worker string) {
	t.Helper()
	select {
	case <-q.done:
	case <-time.After(exitTime):
		t.Fatal("the slow request is not answered")
	}
	if q.err != nil || q.a.status != 200 || q.a.worker != worker {
		t.Errorf("slow request: %+v, %v; want an answer of worker %s", q.a, q.err, worker)
	}
}
