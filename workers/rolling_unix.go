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
// has gone a new one starts, until none is old. Should a new one fail meanwhile, the
// new ones drain and the old generation is whole again.

// roll is the way from one generation to the next.
type roll struct {
	old  *generation // serves, too, with ever fewer workers
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

// rollOn takes the next step, if the last one has been taken.
func (p *Pool) rollOn() {
	r, g := p.rolling, p.serving
	if r == nil || p.frozen || p.stopping || g.count(WorkerServing) < g.wanted {
		return
	}
	switch left := len(r.old.children); {
	case left > r.old.wanted-r.old.ceded: // one is on its way out
	case g.wanted < p.target(g) && left+len(g.children) < r.most:
		g.wanted++
		p.fill(g)
	case r.old.ceded < r.old.wanted: // its slot has a new one by now, or will never have
		r.old.ceded++
		p.drainBeyond(r.old, g.options.DrainTimeout, fmt.Sprintf("replaced by generation %d", g.number))
	default:
		p.rolling = nil
		close(r.done)
		p.outlive(r.old, g)
		p.drain(r.old, g.options.DrainTimeout, "") // it has no workers any more
		p.emit(GenerationRolled{Generation: g.number, Workers: g.wanted, Took: time.Since(g.served), Previous: r.old.number})
		p.boundDraining()
		g.wanted = p.target(g)
		p.resize(g)
	}
}

// rolls says whether g is on its way to replace another.
func (p *Pool) rolls(g *generation) bool { return p.rolling != nil && g == p.serving }

// unroll gives the service back to the old generation, which is made whole.
func (p *Pool) unroll(why *RefusedError) {
	r, g := p.rolling, p.serving
	p.rolling, p.serving = nil, r.old
	r.err = why
	close(r.done)
	p.refused = why
	p.emit(GenerationRefused{Generation: g.number, Reason: why.Reason, Stderr: why.Stderr})
	r.old.ceded = 0
	if p.override > 0 {
		r.old.wanted = p.override
	}
	p.retarget()
	p.drain(g, r.old.options.DrainTimeout, "taken back: "+why.Reason)
	p.resize(r.old)
}

// Rolled waits until no generation is on the way to replace another worker by
// worker, and returns a *RefusedError if one was and has been taken back. When
// ctx ends it goes on all the same.
func (p *Pool) Rolled(ctx context.Context) error {
	var r *roll
	if err := p.do(func() { r = p.rolling }); err != nil || r == nil {
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
