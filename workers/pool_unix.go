//go:build unix

package workers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers/dispatch"
)

// Config is what a pool is made from. It belongs to the master; what belongs
// to a generation is in Options.
type Config struct {
	Argv      []string             // of the workers; Argv[0] as the master was started
	Dir       string               // their working directory
	Account   *Account             // that they run as; nil: the master's own
	Stderr    *os.File             // theirs once they are ready; nil: os.Stderr
	Listeners []*listener.Listener // owned by the caller, accepted on by the pool
	Workers   int                  // as an operator has set them for an earlier pool; 0: as the release says
	OnEvent   func(Event)          // may be nil
	OnFailing func(generation int) // a young one crashes too often; must not block; may be nil

	// Options reads the Intro of a generation's first worker: it returns the
	// generation's options and the environment of its workers, which may depend
	// on their number, or an error for which the generation is refused.
	Options func(Intro) (Options, []string, error)

	// Policies finds what Options.Dispatch names; nil: dispatch.Parse.
	Policies func(name string) (dispatch.Policy, error)

	cell *cell // in which those of Account are started
}

// Pool supervises workers and hands connections to them. Its state belongs to
// one goroutine, Run; methods hand it closures and wait.
type Pool struct {
	cfg       Config
	d         *dispatcher
	reserve   *reserve
	stderr    *forward
	listeners []ListenerInfo
	acceptors []*acceptor    // one for each listener
	queues    []*queues      // ditto
	byKey     map[string]int // the acceptors' indices

	pressed atomic.Int32 // accept loops at the limit of descriptors

	posts  chan func()
	ended  chan struct{} // Run has returned
	events *emitter

	// Owned by Run's goroutine.
	generations []*generation // oldest first
	serving     *generation
	rolling     *roll           // the one before serves, too; nil if it does not
	succeeds    bool            // ours, which is ready, is about to replace the adopted one: nobody is given connections
	known       map[string]bool // keys of the listeners of the master before
	override    int             // workers as an operator set them; 0: as the release says
	shared      []byte
	frozen      bool
	gathered    bool // all is accepted by this process
	deferred    []func()
	stopping    bool
	stopBy      time.Time
	abandoned   bool // another master has the workers
	failure     error
	lastTick    time.Time
	pace        time.Duration // until the next
	ownBefore   uint64        // connections that workers had accepted for themselves by then
	unserved    time.Time     // since when nobody serves; zero when somebody does
	refused     *RefusedError // the last
	highest     int           // number of a generation so far
	record      recording
	licensing   news     // of licences
	noOrphans   bool     // the service ends
	orphans     *Orphans // of a master that died, for those that come late; may be nil
	policy      string   // that the dispatcher was given last
	previous    *release // that served before; nil if there is none to go back to
	drained     Drained  // by all workers that ever drained
}

// ErrGaveUp is returned by Run when no worker has served for GiveUpAfter.
var ErrGaveUp = errors.New("no worker has been able to serve")

// ErrStopped is returned for what a stopping or ended pool cannot do.
var ErrStopped = errors.New("the pool is stopping")

// New returns a pool that holds nothing yet. Call Run.
func New(cfg Config) *Pool {
	if cfg.Stderr == nil {
		cfg.Stderr = os.Stderr
	}
	if cfg.Policies == nil {
		cfg.Policies = dispatch.Parse
	}
	policy := dispatch.RoundRobin()
	p := &Pool{
		cfg: cfg, policy: policy.Name(), d: newDispatcher(policy), reserve: newReserve(), stderr: newForward(os.Stderr),
		posts: make(chan func(), 256), ended: make(chan struct{}), events: newEmitter(cfg.OnEvent), override: cfg.Workers,
	}
	p.d.choice.failed = func(e PolicyFailed) { p.emit(e) }
	p.record.done = make(chan struct{})
	p.licensing = make(news)
	p.d.accepted = make([]uint64, len(cfg.Listeners))
	specs := make([]listener.Spec, len(cfg.Listeners))
	for i, l := range cfg.Listeners {
		specs[i] = l.Spec()
	}
	keys := listener.Keys(specs)
	p.byKey = map[string]int{}
	for i, key := range keys {
		p.byKey[key] = i
	}
	for i, l := range cfg.Listeners {
		p.listeners = append(p.listeners, ListenerInfo{Name: l.Name(), Network: l.Addr().Network(), Address: l.Addr().String()})
		a := newAcceptor(p, l, i, keys[i])
		p.acceptors = append(p.acceptors, a)
		p.queues = append(p.queues, &queues{p: p, first: a})
	}
	return p
}

// Run is the pool's loop. It returns nil after Stop, when the last worker is
// gone, and ErrGaveUp if nobody served for GiveUpAfter.
func (p *Pool) Run() error {
	defer p.events.close()
	defer p.reserve.close()
	if p.cfg.Account != nil {
		p.cfg.cell = newCell()
		defer p.cfg.cell.close()
	}
	defer p.forget()
	defer p.leaveGroups()
	defer p.rest()
	go p.stderr.run()
	defer p.stderr.close()
	defer close(p.ended)
	p.lastTick, p.pace = time.Now(), tick // the first tick can be late, too
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for !p.abandoned && (!p.stopping || len(p.generations) > 0) {
		select {
		case f := <-p.posts:
			f()
			if p.pace > tick {
				p.pace = tick
				timer.Reset(tick)
			}
		case <-p.d.quiet.stirred:
			timer.Reset(0)
		case <-timer.C:
			if now := time.Now(); !p.frozen {
				p.inspect(now)
				p.pace = p.nextPace(now)
			}
			timer.Reset(p.pace)
		}
		p.note()
	}
	if !p.abandoned {
		p.d.refuseAll()
	}
	return p.failure
}

// post hands f to the pool's goroutine. What comes after the end is dropped.
func (p *Pool) post(f func()) {
	select {
	case p.posts <- f:
	case <-p.ended:
	}
}

// do runs f on the pool's goroutine and waits for it.
func (p *Pool) do(f func()) error {
	done := make(chan struct{})
	select {
	case p.posts <- func() { defer close(done); f() }:
	case <-p.ended:
		return ErrStopped
	}
	select {
	case <-done:
		return nil
	case <-p.ended:
		return ErrStopped
	}
}

// emit tells the subscribers. What is worth an event is worth a record.
func (p *Pool) emit(e Event) {
	p.record.changed.Store(true)
	p.events.emit(e)
}

// options are those in force: the serving generation's.
func (p *Pool) options() Options {
	switch {
	case p.serving != nil:
		return p.serving.options
	case len(p.generations) > 0:
		return p.generations[len(p.generations)-1].options
	}
	return Options{KillTimeout: 5 * time.Second}
}

// Spec is a generation to start.
type Spec struct {
	Number       int
	Binary       *Binary       // the pool closes it
	Env          []string      // of its first worker; the others' comes with the options
	Rollback     bool          // of the release that served before
	Probe        bool          // only hear its Intro, and end it
	ReadyTimeout time.Duration // until its own options are known
	KillTimeout  time.Duration
}

// Prepare starts a generation and returns when all its workers are ready, or
// with a *RefusedError when it is discarded: a worker exited or failed, was
// not ready in time, or ctx ended. The serving generation notices nothing.
// A probe returns nil once its options have been found good, and is gone.
func (p *Pool) Prepare(ctx context.Context, s Spec) error {
	result := make(chan error, 1)
	var g *generation
	err := p.do(func() {
		if p.stopping {
			s.Binary.Close()
			result <- ErrStopped
			return
		}
		now := time.Now()
		g = &generation{
			number: s.Number, binary: s.Binary, env: s.Env, ledger: newLedger(s.Number), wanted: 1,
			options: Options{Workers: 1, ReadyTimeout: s.ReadyTimeout, KillTimeout: s.KillTimeout},
			slots:   map[int]*slot{}, born: now, probe: s.Probe, rollback: s.Rollback, done: func(err error) { result <- err },
		}
		g.timer = time.AfterFunc(s.ReadyTimeout, func() { p.post(func() { p.tooLate(g) }) })
		p.highest = max(p.highest, s.Number)
		p.generations = append(p.generations, g)
		p.spawn(g, 1, nil)
	})
	if err != nil {
		s.Binary.Close()
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		p.post(func() {
			if g == nil { // refused from the start
				return
			}
			p.discard(g, &RefusedError{Generation: g.number, Reason: "given up: " + context.Cause(ctx).Error(), Err: context.Cause(ctx)})
		})
		select {
		case err := <-result:
			return err
		case <-p.ended:
			return ErrStopped
		}
	case <-p.ended:
		return ErrStopped
	}
}

// Discard ends a prepared generation that is not wanted after all.
func (p *Pool) Discard(number int, reason string) {
	p.post(func() {
		if g := p.find(number); g != nil {
			p.discard(g, &RefusedError{Generation: number, Reason: reason})
		}
	})
}

func (p *Pool) find(number int) *generation {
	for _, g := range p.generations {
		// A discarded one may share its number with the next attempt.
		if g.number == number && g.state < GenerationIsDiscarded {
			return g
		}
	}
	return nil
}

// Commit makes a prepared generation the serving one, in one step, and drains
// the one before. The first commit starts accepting.
func (p *Pool) Commit(number int) error {
	_ = p.do(func() {
		if g := p.find(number); g != nil {
			if err := p.makeQueues(g); err != nil {
				p.discard(g, &RefusedError{Generation: number, Reason: err.Error(), Err: err})
			}
		}
	})
	p.awaitRecord(number)
	var err error
	if stopped := p.do(func() {
		g := p.find(number)
		if g == nil || g.state != GenerationIsReady || p.stopping {
			err = ErrStopped
			if p.refused != nil && p.refused.Generation == number {
				err = p.refused
			}
			return
		}
		move(&g.state, GenerationIsServing, generationMoves)
		g.timer.Stop()
		g.served = time.Now()
		p.endRoll(nil) // one that goes back
		old := p.serving
		p.serving, p.succeeds = g, false
		for _, c := range g.children {
			if c.state == WorkerIsReady {
				move(&c.state, WorkerServing, workerMoves)
				c.say(msgCommit, nil)
				p.entrust(c)
			}
		}
		p.retarget()
		previous := 0
		if old != nil {
			previous = old.number
		}
		p.emit(GenerationServing{
			Generation: g.number, Workers: g.wanted, Revision: g.binary.Build.Revision,
			Took: g.served.Sub(g.born), Previous: previous,
		})
		p.accept()
		if old != nil && old.wanted > 0 && g.options.Rolling {
			p.beginRoll(old, g)
			return
		}
		if old != nil {
			p.outlive(old, g)
			p.drain(old, g.options.DrainTimeout, fmt.Sprintf("replaced by generation %d", g.number))
		}
		p.boundDraining()
		g.wanted = p.target(g) // it may have been scaled since it was started
		p.resize(g)
	}); stopped != nil {
		return stopped
	}
	if err == nil {
		p.awaitWithdrawn()
	}
	return err
}

// boundDraining cuts the oldest generations beyond MaxDraining.
func (p *Pool) boundDraining() {
	draining := 0
	for _, g := range slices.Backward(p.generations) {
		if g.state != GenerationIsDraining {
			continue
		}
		if draining++; draining > p.options().MaxDraining {
			p.drain(g, 0, "too many old generations drain")
		}
	}
}

// retarget tells the dispatcher who may get connections.
func (p *Pool) retarget() {
	if p.serving == nil || p.succeeds {
		return
	}
	var ws []*window
	if p.rolling != nil {
		ws = p.rolling.old.rotation()
	}
	ws = append(ws, p.serving.rotation()...)
	adopts := make([]bool, len(p.acceptors))
	for _, key := range p.serving.options.Adopts {
		if i, ok := p.byKey[key]; ok && (p.rolling == nil || slices.Contains(p.rolling.old.options.Adopts, key)) {
			adopts[i] = true
		}
	}
	p.d.serve(ws, p.serving.ledger, adopts, p.rule(p.serving))
	p.license()
}

// accept has connections accepted, if they are not yet.
func (p *Pool) accept() {
	for _, a := range p.acceptors {
		a.open = true
	}
	p.license()
}

// acceptKnown has them accepted for workers of the master before, who know nothing of
// a listener that it had not.
func (p *Pool) acceptKnown() {
	for _, a := range p.acceptors {
		if p.known[a.key] {
			a.open = true
		}
	}
	p.license()
}

// Ended is closed when Run has returned.
func (p *Pool) Ended() <-chan struct{} { return p.ended }

// Signal passes sig to all workers that are ready; others have not taken it
// over yet and would die of it.
func (p *Pool) Signal(sig syscall.Signal) {
	p.post(func() {
		for _, g := range p.generations {
			for _, c := range g.children {
				if c.state >= WorkerIsReady && c.state <= WorkerIsDraining {
					_ = c.proc.signal(sig)
				}
			}
		}
	})
}

// Sweep accepts what the kernel has queued and stops accepting: the last thing
// before the listeners are closed. It waits for room until ctx ends; before the
// first generation serves there is none to wait for.
func (p *Pool) Sweep(ctx context.Context) {
	var open []*acceptor // there has been somebody who could take what is queued there
	_ = p.do(func() {
		if p.serving == nil {
			return
		}
		for at, a := range p.acceptors {
			if a.open {
				open = append(open, p.queues[at].all()...)
			}
		}
	})
	for _, a := range p.sockets() {
		a.stop()
	}
	if len(open) == 0 {
		return
	}
	var all sync.WaitGroup
	for _, a := range open { // at once: each takes what room there is
		if a.l.Shared() {
			continue // what is queued there is the next owner's
		}
		all.Go(func() { a.sweep(ctx) })
	}
	all.Wait()
	p.d.settled(ctx)
}

// Prepared says whether generation number still is ready to be committed.
func (p *Pool) Prepared(number int) (ready bool) {
	_ = p.do(func() {
		g := p.find(number)
		ready = g != nil && g.state == GenerationIsReady
	})
	return ready
}

// Stop drains every worker within timeout. Run returns when the last is gone.
// A second call may shorten the time.
func (p *Pool) Stop(timeout time.Duration, reason string) {
	p.post(func() {
		p.stop(timeout, reason)
	})
}

func (p *Pool) stop(timeout time.Duration, reason string) {
	p.stopping = true
	p.stopBy = time.Now().Add(timeout)
	p.d.noReturns()
	p.endRoll(ErrStopped)
	for _, g := range slices.Clone(p.generations) {
		if g.state == GenerationStarting || g.state == GenerationIsReady {
			p.discard(g, &RefusedError{Generation: g.number, Reason: "the service stops", Err: ErrStopped})
			continue
		}
		p.drain(g, timeout, reason)
	}
}
