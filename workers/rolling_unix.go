//go:build unix

package workers

import (
	"context"
	"fmt"
	"time"
)

// A generation that rolls needs little memory beside the one that it replaces:
// never more than one worker above what there are otherwise. It is committed with
// its first worker, and from then on both serve: an old worker drains, and when it
// has gone a new one starts, until none is old. Should a new one fail meanwhile,
// the way is gone back, as it came: at no moment is there nobody who serves.

// roll is the way from one generation to the one that is in p.serving.
type roll struct {
	old  *generation // serves, too, with ever fewer workers
	back bool        // old is the one that failed
	most int         // workers of both at a time
	done chan struct{}
	err  error // once done is closed
}

// beginRoll lets g, which has just been committed, replace old step by step.
func (p *Pool) beginRoll(old, g *generation) {
	p.rolling = &roll{old: old, most: max(old.wanted, p.target(g)) + 1, done: make(chan struct{})}
	p.rollOn()
}

// target is how many workers g is to have in the end.
func (p *Pool) target(g *generation) int {
	if p.override > 0 {
		return p.override
	}
	return g.options.Workers
}

// rollOn takes the steps that can be taken now. Each that has to wait for a worker
// is followed by its start or its exit, which come here again; one that finds an
// empty slot is not.
func (p *Pool) rollOn() {
	for p.step() {
	}
}

// step takes the next step, if the last one has been taken, and says whether there
// may be another. The old generation gives its slots up from the first on, as the
// new one takes them; on the way back each goes the other way.
func (p *Pool) step() bool {
	r, g := p.rolling, p.serving
	if r == nil || p.frozen || p.stopping || g.count(WorkerServing) < g.slotsWanted() {
		return false
	}
	grows := g.wanted < p.target(g)
	if r.back {
		grows = g.ceded > 0
	}
	switch left := len(r.old.children); {
	case left > r.old.slotsWanted(): // one is on its way out
		return false
	case grows && left+len(g.children) < r.most:
		if r.back {
			g.ceded--
		} else {
			g.wanted++
		}
		p.fill(g)
	case r.old.slotsWanted() > 0: // the slot has another worker by now, or will never have
		if r.back {
			r.old.wanted--
		} else {
			r.old.ceded++
		}
		p.drainBeyond(r.old, g.options.DrainTimeout, fmt.Sprintf("replaced by generation %d", g.number))
	default:
		if !r.back {
			p.outlive(r.old, g)
		}
		p.endRoll(nil)
		if !r.back {
			p.emit(GenerationRolled{Generation: g.number, Workers: g.wanted, Took: time.Since(g.served), Previous: r.old.number})
		}
		p.boundDraining()
		g.wanted = p.target(g)
		p.resize(g)
		return false
	}
	return true
}

// endRoll drains what is left of the old generation, all at once.
func (p *Pool) endRoll(err error) {
	r := p.rolling
	if r == nil {
		return
	}
	p.rolling = nil
	r.err = err
	close(r.done)
	p.retarget()
	p.drain(r.old, r.old.options.DrainTimeout, fmt.Sprintf("replaced by generation %d", p.serving.number))
}

// rolls says whether g is on its way to replace another.
func (p *Pool) rolls(g *generation) bool {
	return p.rolling != nil && !p.rolling.back && g == p.serving
}

// goesBack says whether g has failed to replace another. Its workers are not
// started again.
func (p *Pool) goesBack(g *generation) bool {
	return p.rolling != nil && p.rolling.back && g == p.rolling.old
}

// unroll gives the service back to the old generation.
func (p *Pool) unroll(why *RefusedError) {
	r, g := p.rolling, p.serving
	r.err = why
	close(r.done)
	p.refused = why
	p.emit(GenerationRefused{Generation: g.number, Reason: why.Reason, Stderr: why.Stderr})
	p.serving = r.old
	p.rolling = &roll{old: g, back: true, most: r.most, done: make(chan struct{})}
	g.wanted = min(g.wanted, r.old.ceded) // one that was about to come does not
	p.retarget()
	p.drainBeyond(g, r.old.options.DrainTimeout, "taken back: "+why.Reason)
	p.rollOn()
}

// Rolled waits until no generation is on the way to replace another worker by
// worker, and returns a *RefusedError if one was and is being taken back, which it
// does not wait for: the next deploy may be the remedy. When ctx ends the roll goes
// on all the same.
func (p *Pool) Rolled(ctx context.Context) error {
	var r *roll
	if err := p.do(func() { r = p.rolling }); err != nil || r == nil || r.back {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ended:
		return ErrStopped
	}
}
