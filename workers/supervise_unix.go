//go:build unix

package workers

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// introduced: a worker told what it was started as.
func (p *Pool) introduced(c *child, in Intro) {
	if c.state != WorkerStarting || c.expected {
		return
	}
	if in.Nonce != c.nonce {
		p.failed(c, "its introduction does not repeat the nonce")
		return
	}
	g := c.gen
	if g.state != GenerationStarting || g.introduced {
		p.welcome(c)
		return
	}
	var o Options
	var env []string
	err := p.accepts(g, in.Protocol)
	if err == nil {
		o, env, err = p.cfg.Options(in)
	}
	if err != nil {
		p.discard(g, &RefusedError{Generation: g.number, Reason: err.Error(), Stderr: c.out.String(), Err: err})
		return
	}
	if g.probe {
		g.done(nil)
		g.done = nil
		p.discard(g, &RefusedError{})
		return
	}
	g.introduced = true
	g.speaks = in.Protocol
	g.options = o
	g.wanted = p.target(g)
	if o.Rolling {
		g.wanted = 1 // the others follow once it serves
	}
	g.timer.Reset(o.ReadyTimeout - time.Since(g.born))
	c.setTimer(o.ReadyTimeout-time.Since(c.born), p, func() { p.unready(c, o.ReadyTimeout) })
	if !slices.Equal(env, g.env) {
		// This worker was started with another's share of the machine.
		g.env = env
		p.dismiss(c)
	} else {
		p.welcome(c)
	}
	p.fill(g)
}

// accepts says whether this pool can be the master of g, which speaks v, or if g is
// a probe, whether a master that speaks v can have the workers of this pool. What
// is gone back to cannot bring its master, and does without.
func (p *Pool) accepts(g *generation, v Versions) error {
	if !protocol.Meets(v) {
		return fmt.Errorf("it speaks protocol %s, this master %s: %w", v, protocol, ErrIncompatible)
	}
	if g.probe {
		for _, old := range p.generations {
			if (old.state == GenerationIsServing || old.state == GenerationIsDraining) && !old.speaks.Meets(v) {
				return fmt.Errorf("it speaks protocol %s, generation %d, which is %s, %s: %w", v, old.number, old.state, old.speaks, ErrIncompatible)
			}
		}
	}
	if v.Newest > protocol.Newest && !g.rollback {
		return fmt.Errorf("it speaks protocol %s, this master %s: %w", v, protocol, ErrNeedsMaster)
	}
	return nil
}

// isReady: a worker can take connections.
func (p *Pool) isReady(c *child) {
	if c.state != WorkerStarting || c.expected {
		return
	}
	move(&c.state, WorkerIsReady, workerMoves)
	c.timer.Stop()
	c.ready = time.Now()
	p.emit(WorkerReady{Worker: c.id, PID: c.proc.pid, Took: c.ready.Sub(c.born)})
	g := c.gen
	switch g.state {
	case GenerationStarting:
		if g.introduced && g.count(WorkerIsReady) >= g.wanted {
			move(&g.state, GenerationIsReady, generationMoves)
			g.timer.Stop()
			g.done(nil)
			g.done = nil
		}
	case GenerationIsServing:
		move(&c.state, WorkerServing, workerMoves)
		c.say(msgCommit, nil)
		p.retarget()
		if old := c.replaces; old != nil {
			c.replaces = nil
			p.drainChild(old, g.options.DrainTimeout, old.reason)
		}
		p.rollOn()
	}
}

// failed: a worker said, or showed, that it never will be ready.
func (p *Pool) failed(c *child, reason string) {
	if c.state != WorkerStarting || c.expected {
		return
	}
	c.reason = reason
	if c.gen.state == GenerationStarting {
		// Its stderr may still be on the way; its exit, which follows, has the
		// rest. One that says it failed and stays is cut short.
		c.setTimer(p.options().KillTimeout, p, func() { p.kill(c, reason) })
		return
	}
	p.kill(c, reason)
}

func (p *Pool) unready(c *child, limit time.Duration) {
	if c.state == WorkerStarting && !c.expected {
		p.refuse(c, fmt.Sprintf("worker %s was not ready within %v", c.id, limit))
		p.kill(c, "not ready in time")
	}
}

func (p *Pool) tooLate(g *generation) {
	if g.state != GenerationStarting {
		return
	}
	why := &RefusedError{Generation: g.number, Reason: fmt.Sprintf(
		"%d of %d workers ready within %v", g.count(WorkerIsReady), g.wanted, g.options.ReadyTimeout)}
	for _, c := range g.children { // what the first one waits for, the others do too
		if c.state == WorkerStarting && !c.expected && why.Stderr == "" {
			why.Stderr = c.out.String()
		}
	}
	p.discard(g, why)
}

// refuse discards the generation of c if that is still starting.
func (p *Pool) refuse(c *child, reason string) {
	stderr := c.out.String()
	if stderr == "" {
		stderr = readTrace(c.crash)
	}
	p.discard(c.gen, &RefusedError{Generation: c.gen.number, Reason: reason, Stderr: stderr})
}

// misbehaved: a worker sent what no worker sends. It finishes what it has, and
// another takes its place.
func (p *Pool) misbehaved(c *child, err error) {
	if c.gen.state == GenerationStarting || c.gen.state == GenerationIsReady {
		p.refuse(c, fmt.Sprintf("worker %s: %v", c.id, err))
		return
	}
	if c.state <= WorkerServing && !c.expected {
		p.emit(WorkerMisbehaved{Worker: c.id, PID: c.proc.pid, Reason: err.Error()})
		p.leaving(c, "broke the protocol")
	}
}

// leaving: a worker is to be replaced although its generation goes on. It goes
// on serving until its replacement does, if nobody else serves.
func (p *Pool) leaving(c *child, reason string) {
	g := c.gen
	if c.expected || c.state > WorkerServing {
		return
	}
	if g.state != GenerationIsServing || p.stopping {
		if g.state == GenerationStarting || g.state == GenerationIsReady {
			p.refuse(c, fmt.Sprintf("worker %s left before it served", c.id))
		}
		return
	}
	c.expected = true
	c.reason = reason
	if !g.wants(c.id.Slot) {
		p.drainChild(c, g.options.DrainTimeout, reason)
		return
	}
	if g.count(WorkerServing) > 1 {
		p.drainChild(c, g.options.DrainTimeout, reason)
		p.spawn(g, c.id.Slot, nil)
		return
	}
	p.spawn(g, c.id.Slot, c)
	p.awaitOther(c)
}

// awaitOther drains c once another worker serves, should the one that was
// started in its place have died.
func (p *Pool) awaitOther(c *child) {
	g := c.gen
	c.setTimer(g.options.ReadyTimeout, p, func() {
		if g.count(WorkerServing) > 1 {
			p.drainChild(c, g.options.DrainTimeout, c.reason)
			return
		}
		p.awaitOther(c)
	})
}

// disconnected: the worker's end of the socket is closed. If it lives on, it
// can be told nothing any more.
func (p *Pool) disconnected(c *child) {
	if c.state >= WorkerIsKilled || c.expected {
		return
	}
	c.setTimer(p.options().KillTimeout, p, func() { p.kill(c, "closed its socket to the master") })
}

// exited: the worker is dead and all it said has been read.
func (p *Pool) exited(c *child, status string) {
	if p.frozen {
		// The freeze may have stopped the reader before the end, and what it
		// has not read may be acknowledgements: died begins again.
		p.deferred = append(p.deferred, func() { p.died(c, status) })
		return
	}
	g := c.gen
	was := c.state
	young := g.state == GenerationStarting || g.state == GenerationIsReady
	c.state = WorkerIsGone // from any state
	if c.timer != nil {
		c.timer.Stop()
	}
	p.countOwn(c)
	p.licensing.tell()
	open, _ := readCounters(c.page)
	cut := int(open)
	if was == WorkerIsDraining || c.report != nil || g.state == GenerationIsDraining {
		cut = p.account(c, cut)
	}
	requeued := p.d.abandon(c.window, cut)
	output := readTrace(c.crash)
	if output == "" {
		output = c.out.String()
	}
	g.children = slices.DeleteFunc(g.children, func(o *child) bool { return o == c })
	p.retarget()
	c.started.close()

	respawn := time.Duration(-1)
	s := g.slot(c.id.Slot)
	s.lastExit = status
	if c.reason != "" {
		s.lastExit += " (" + c.reason + ")"
	}
	switch {
	case young && !c.expected:
		reason := c.reason
		if reason == "" {
			reason = fmt.Sprintf("worker %s: %s before it was ready", c.id, status)
			if was != WorkerStarting {
				reason = fmt.Sprintf("worker %s: %s before it served", c.id, status)
			}
		} else {
			reason = fmt.Sprintf("worker %s: %s", c.id, reason)
		}
		p.discard(g, &RefusedError{Generation: g.number, Reason: reason, Stderr: output})
	case p.goesBack(g):
	case p.rolls(g) && !p.stopping && !c.expected:
		p.unroll(&RefusedError{Generation: g.number, Reason: fmt.Sprintf("worker %s: %s", c.id, s.lastExit), Stderr: output})
	case g.state == GenerationIsServing && !p.stopping && !c.expected && g.wants(c.id.Slot):
		served := time.Duration(0)
		if !c.ready.IsZero() {
			served = time.Since(c.ready)
		}
		respawn = p.respawn(g, c.id.Slot, served)
		p.crashed(g, s.lastExit)
	case g.state == GenerationIsServing && !p.stopping && g.wants(c.id.Slot) && !g.occupied(c.id.Slot):
		p.spawn(g, c.id.Slot, nil) // left on request, and nobody took its place yet
	}
	p.emit(WorkerExited{
		Worker: c.id, PID: c.proc.pid, Status: status, Expected: c.expected, Starting: young, Cut: cut,
		Requeued: requeued, Output: output, Respawn: respawn,
	})
	p.settle(g)
	p.rollOn()
}

// account adds what became of the connections of a worker that drained, of
// which open were left at its end. It returns how many were cut.
func (p *Pool) account(c *child, open int) int {
	var d Drained
	if c.report != nil {
		d = *c.report
	}
	if died := open - d.Cut.Total(); died > 0 { // it did not get as far as to say so
		d = d.With(Drained{Cut: Tally{CutDied: died}})
	}
	c.gen.outcome = c.gen.outcome.With(d)
	p.drained = p.drained.With(d)
	return d.Cut.Total()
}

// stallAfter is how long a worker may owe an answer and stay in the rotation.
const stallAfter = time.Second

// dumpTime is what a hung worker gets to write its goroutines.
const dumpTime = time.Second

// inspect pings the workers, takes those that do not answer out of the
// rotation, and kills the one that has been silent for HangTimeout.
func (p *Pool) inspect(now time.Time) {
	late := now.Sub(p.lastTick) > 2*tick
	p.lastTick = now
	if late {
		// We did not run ourselves: stopped, starved or suspended. The silence
		// of the workers means nothing.
		p.d.touchAges(now)
	}
	hung := false
	for _, g := range p.generations {
		for _, c := range g.children {
			if c.state < WorkerIsReady || c.state > WorkerIsDraining {
				continue
			}
			if c.ponged.Swap(false) {
				c.pinged = time.Time{}
				c.dumped = time.Time{}
			}
			switch {
			case c.pinged.IsZero():
				c.pinged = now
				c.pingOwed = c.conn.TrySend(msgPing, nil, nil) != nil
			case c.pingOwed:
				c.pingOwed = c.conn.TrySend(msgPing, nil, nil) != nil
				fallthrough
			default:
				if late {
					c.pinged = now
				}
			}
			silent := now.Sub(c.pinged)
			waits := max(silent, p.d.age(c.window, now), c.owes(now, late))
			if stalled := waits > stallAfter; stalled != c.stalled {
				c.stalled = stalled
				p.d.stall(c.window, stalled)
				if stalled {
					p.emit(WorkerStalled{Worker: c.id, PID: c.proc.pid, For: waits})
				} else {
					p.emit(WorkerResumed{Worker: c.id, PID: c.proc.pid})
				}
			}
			limit := g.options.HangTimeout
			if limit == 0 || waits < limit || hung || late {
				continue
			}
			hung = true // one at a time
			switch {
			case c.dumped.IsZero():
				c.dumped = now
				_ = c.proc.signal(syscall.SIGQUIT)
			case now.Sub(c.dumped) >= dumpTime:
				p.kill(c, fmt.Sprintf("no answer for %v", limit))
			}
		}
	}
	if p.record.failing {
		p.record.changed.Store(true)
	}
	p.entrustAll()
	p.license()
	p.giveUp(now)
}

// giveUp ends the pool when nobody has served for GiveUpAfter.
func (p *Pool) giveUp(now time.Time) {
	if p.serving == nil || p.stopping {
		return
	}
	if p.serving.count(WorkerServing) > 0 || p.rolling != nil && p.rolling.old.count(WorkerServing) > 0 {
		p.unserved = time.Time{}
		return
	}
	if p.unserved.IsZero() {
		p.unserved = now
	}
	if limit := p.serving.options.GiveUpAfter; limit > 0 && now.Sub(p.unserved) >= limit {
		p.failure = fmt.Errorf("%w for %v", ErrGaveUp, limit)
		p.stop(p.serving.options.KillTimeout, "giving up")
	}
}
