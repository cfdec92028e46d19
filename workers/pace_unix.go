//go:build unix

package workers

import "time"

// The pool looks after its workers every tick, and after calm while nothing
// happens: each look wakes every process of the service. Who does not answer then
// is found out later: the first connection that the master accepts has the pool
// look at once, and one that a worker accepts for itself is seen at the next look.
const (
	tick = 500 * time.Millisecond
	calm = 4 * time.Second
)

// nextPace is the time until the next look, after one at now.
func (p *Pool) nextPace(now time.Time) time.Duration {
	g := p.serving
	if g == nil || g.state != GenerationIsServing || len(p.generations) > 1 || p.stopping || p.record.failing {
		return tick
	}
	if limit := g.options.HangTimeout; limit > 0 && limit < 4*calm {
		return tick
	}
	own := uint64(0) // connections that workers have accepted for themselves
	for _, c := range g.children {
		n, _ := p.accepted(c)
		own += n
		if c.state != WorkerServing || c.stalled || c.pingOwed || c.pinged != now {
			return tick
		}
	}
	came := own != p.ownBefore
	p.ownBefore = own
	if came || len(g.children) < g.slotsWanted() || !p.d.rests() {
		return tick
	}
	return calm
}

// quiet is whether nobody connects, guarded by the dispatcher's lock.
type quiet struct {
	calm    bool          // the pool does not look often
	stirred chan struct{} // and is to look now
	before  uint64        // connections, when it looked last
}

func newQuiet() quiet { return quiet{stirred: make(chan struct{}, 1)} }

// stir is called when there is something to send.
func (q *quiet) stir() {
	if !q.calm {
		return
	}
	q.calm = false
	select {
	case q.stirred <- struct{}{}:
	default:
	}
}

// rests is whether no connection came since it was asked last, and none is on its
// way. The next one stirs the pool then.
func (d *dispatcher) rests() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	came := uint64(0)
	for _, n := range d.accepted {
		came += n
	}
	rests := came == d.quiet.before && len(d.queue) == 0 && len(d.returning) == 0
	for _, w := range d.targets {
		rests = rests && len(w.unacked) == 0
	}
	d.quiet.before, d.quiet.calm = came, rests
	return rests
}
