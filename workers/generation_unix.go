//go:build unix

package workers

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// generation is one binary, one environment and the workers started from them.
// The pool's goroutine owns it.
type generation struct {
	number   int
	state    GenerationState
	binary   *Binary
	env      []string
	options  Options
	speaks   Versions // since it is introduced
	ledger   *ledger
	wanted   int // workers, in slots from 1 on
	ceded    int // of these slots to the generation that replaces it
	children []*child
	slots    map[int]*slot
	weights  map[int]int // of slots, as an operator has set them

	born, served, drained time.Time
	introduced            bool // its first worker has told its options
	probe                 bool // it is only to do that
	rollback              bool // its release served before
	crashes               int  // while it was young
	failing               bool // too many
	done                  func(error)
	timer                 *time.Timer
	outcome               Drained // of those of its workers that have drained
}

// slot is a place for a worker, with the history of those that were in it.
type slot struct {
	budget   budget
	restarts int
	lastExit string
	timer    *time.Timer // the respawn to come
	starting bool        // a fork is under way
}

// RefusedError says why a generation never served.
type RefusedError struct {
	Generation int
	Reason     string
	Stderr     string // the end of what the failed worker wrote
	Probe      bool   // it was not to serve anyway
	Err        error  // the cause, if there is one to match
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("generation %d refused: %s", e.Generation, e.Reason)
}

func (e *RefusedError) Unwrap() error { return e.Err }

func (g *generation) slot(n int) *slot {
	if g.slots[n] == nil {
		g.slots[n] = &slot{}
	}
	return g.slots[n]
}

// wants says whether g is to have a worker in slot n.
func (g *generation) wants(n int) bool { return n > g.ceded && n <= g.wanted }

// slotsWanted is in how many slots it is to have one.
func (g *generation) slotsWanted() int { return g.wanted - g.ceded }

// occupied says whether a worker that serves, or will, is in slot n.
func (g *generation) occupied(n int) bool {
	s := g.slots[n]
	if s != nil && (s.starting || s.timer != nil) {
		return true
	}
	return slices.ContainsFunc(g.children, func(c *child) bool {
		return c.id.Slot == n && c.state <= WorkerServing && !c.expected
	})
}

func (g *generation) count(state WorkerState) int {
	n := 0
	for _, c := range g.children {
		if c.state == state {
			n++
		}
	}
	return n
}

func (g *generation) windows() []*window {
	var ws []*window
	for _, c := range g.children {
		ws = append(ws, c.window)
	}
	return ws
}

// rotation is who may get connections.
func (g *generation) rotation() []*window {
	var ws []*window
	for _, c := range g.children {
		if c.state == WorkerServing {
			ws = append(ws, c.window)
		}
	}
	return ws
}

// fill starts a worker in each slot that should have one and has none.
func (p *Pool) fill(g *generation) {
	for n := g.ceded + 1; n <= g.wanted; n++ {
		if !g.occupied(n) {
			p.spawn(g, n, nil)
		}
	}
}

// spawn forks a worker off the pool's goroutine: executing a binary from a
// slow disk must not stop supervision.
func (p *Pool) spawn(g *generation, n int, replaces *child) {
	s := g.slot(n)
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.starting = true
	id := ID{Generation: g.number, Slot: n}
	born, b, env := time.Now(), g.binary, g.env
	go func() {
		var st *started
		// At the limit, what is freed for this must not go to connections.
		hold := p.pressed.Load() > 0
		if hold {
			p.d.hold(true)
		}
		err := p.reserve.with(func() (err error) {
			st, err = start(b, id, p.cfg, env, p.stderr)
			return err
		})
		if hold {
			p.d.hold(false)
		}
		p.post(func() { p.forked(g, n, st, err, born, replaces) })
	}()
}

func (p *Pool) forked(g *generation, n int, st *started, err error, born time.Time, replaces *child) {
	s := g.slot(n)
	s.starting = false
	wanted := g.state <= GenerationIsServing && g.wants(n) && !p.stopping && !p.frozen
	if err != nil {
		if g.state == GenerationStarting {
			p.discard(g, &RefusedError{Generation: g.number, Reason: err.Error(), Err: err})
		} else if wanted && p.rolls(g) {
			p.unroll(&RefusedError{Generation: g.number, Reason: err.Error(), Err: err})
		} else if p.goesBack(g) {
			// Nobody comes in its place.
		} else if wanted {
			s.lastExit = err.Error()
			p.emit(WorkerUnstarted{Worker: ID{Generation: g.number, Slot: n}, Reason: err.Error(), Respawn: p.respawn(g, n, 0)})
		}
		p.settle(g)
		return
	}
	c := &child{
		started: *st, id: ID{Generation: g.number, Slot: n}, gen: g,
		window: p.d.newWindow(st.conn, n, g.ledger), born: born,
		restart: s.restarts > 0 || replaces != nil, replaces: replaces,
		licences: make([]licenceState, len(p.listeners)), readerDone: make(chan struct{}),
	}
	c.window.page = c.page
	g.children = append(g.children, c)
	p.emit(WorkerForked{Worker: c.id, PID: c.proc.pid, Restart: c.restart})
	c.say(msgHello, encode(greeting{
		Protocol: protocol, Nonce: c.nonce, Generation: g.number, Slot: n,
		Listeners: p.listeners, Committed: g.state == GenerationIsServing,
	}))
	if p.frozen {
		close(c.readerDone) // a thaw starts it
	} else {
		go p.read(c, c.readerDone)
	}
	go p.watch(c)
	if !wanted {
		p.dismiss(c)
		return
	}
	ready := g.options.ReadyTimeout
	c.setTimer(ready, p, func() { p.unready(c, ready) })
}

// respawn fills slot n again after the delay that its budget asks for.
func (p *Pool) respawn(g *generation, n int, served time.Duration) time.Duration {
	s := g.slot(n)
	s.restarts++
	delay := s.budget.fail(time.Now(), served)
	s.timer = time.AfterFunc(delay, func() {
		p.post(func() {
			s.timer = nil
			if g.state == GenerationIsServing && !p.stopping && !p.frozen && g.wants(n) && !g.occupied(n) {
				p.spawn(g, n, nil)
			}
		})
	})
	return delay
}

// discard ends a generation that never served.
func (p *Pool) discard(g *generation, why *RefusedError) {
	if g.state != GenerationStarting && g.state != GenerationIsReady {
		return
	}
	move(&g.state, GenerationIsDiscarded, generationMoves)
	p.refused = why
	g.timer.Stop()
	why.Probe = g.probe
	if !g.probe && !errors.Is(why.Err, ErrNeedsMaster) {
		p.emit(GenerationRefused{Generation: g.number, Reason: why.Reason, Stderr: why.Stderr})
	}
	for _, c := range g.children {
		p.dismiss(c)
	}
	if g.done != nil {
		g.done(why)
		g.done = nil
	}
	p.settle(g)
}

// dismiss ends a worker that serves nobody: the end of its socket tells it.
func (p *Pool) dismiss(c *child) {
	c.expected = true
	_ = c.conn.Shutdown()
	c.setTimer(p.options().KillTimeout, p, func() { p.kill(c, "did not leave when dismissed") })
}

// drain tells all workers of g to finish within timeout.
func (p *Pool) drain(g *generation, timeout time.Duration, reason string) {
	if g.state == GenerationIsServing {
		move(&g.state, GenerationIsDraining, generationMoves)
		g.drained = time.Now()
	}
	for _, s := range g.slots {
		if s.timer != nil {
			s.timer.Stop()
			s.timer = nil
		}
	}
	for _, c := range g.children {
		p.drainChild(c, timeout, reason)
	}
	p.settle(g)
}

// drainChild takes a worker out of the rotation and tells it to finish. It may
// be told again, with less time.
func (p *Pool) drainChild(c *child, timeout time.Duration, reason string) {
	switch c.state {
	case WorkerStarting:
		p.dismiss(c)
		return
	case WorkerIsReady, WorkerServing:
		move(&c.state, WorkerIsDraining, workerMoves)
		p.retarget()
		p.emit(WorkerDraining{Worker: c.id, PID: c.proc.pid, Reason: reason})
	case WorkerIsKilled, WorkerIsGone:
		return
	}
	c.expected = true
	o := c.gen.options
	c.say(msgDrain, encode(DrainOrder{Timeout: timeout, Grace: min(o.IdleGrace, timeout), Move: p.canMove(), Reason: reason}))
	drainBy := time.Now().Add(timeout)
	if !c.drainBy.IsZero() && !drainBy.Before(c.drainBy) {
		return // it has been told, and has no more time than that
	}
	c.drainBy = drainBy
	p.record.changed.Store(true)
	c.setTimer(timeout+o.KillTimeout, p, func() { p.kill(c, "did not finish in time") })
}

// canMove says whether somebody can take the idle connections of a worker that
// drains.
func (p *Pool) canMove() bool {
	return !p.stopping && p.serving != nil && p.serving.state == GenerationIsServing && p.serving.count(WorkerServing) > 0
}

// settle closes a generation whose last worker is gone.
func (p *Pool) settle(g *generation) {
	if len(g.children) > 0 || g.state < GenerationIsDraining {
		return
	}
	if slices.ContainsFunc(mapValues(g.slots), func(s *slot) bool { return s.starting }) {
		return
	}
	if g.state == GenerationIsDraining {
		p.emit(GenerationDrained{Generation: g.number, Drained: g.outcome, Took: time.Since(g.drained)})
	}
	if g.state != GenerationIsGone {
		move(&g.state, GenerationIsGone, generationMoves)
		g.binary.Close()
		p.generations = slices.DeleteFunc(p.generations, func(o *generation) bool { return o == g })
	}
}

func mapValues[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
