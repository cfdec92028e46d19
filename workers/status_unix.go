//go:build unix

package workers

import "slices"

// Status returns a snapshot.
func (p *Pool) Status() (s Status, err error) {
	err = p.do(func() {
		p.d.mu.Lock()
		defer p.d.mu.Unlock()
		s.Pending = len(p.d.queue)
		s.Drained = p.drained.With(Drained{})
		for i, l := range p.listeners {
			s.Listeners = append(s.Listeners, ListenerStatus{ListenerInfo: l, Mode: p.mode(i), Accepted: p.d.accepted[i]})
		}
		s.Accepting = !p.stopping && !p.frozen && (p.d.roomLocked() > 0 || p.workersAccept())
		if p.serving != nil {
			s.Serving = p.serving.number
		}
		for _, g := range p.generations {
			if g.state >= GenerationIsDiscarded {
				continue // never served, and on its way out
			}
			gs := GenerationStatus{
				Number: g.number, State: g.state, Wanted: g.slotsWanted(), Started: g.born,
				Path: g.binary.Path, Size: g.binary.Size, MTime: g.binary.MTime, Build: g.binary.Build,
				Options: g.options, Ledger: g.ledger.status(p.d.pending(g.ledger, g.windows())), Drained: g.outcome.With(Drained{}),
			}
			weighs := false
			if g == p.serving {
				gs.Policy = p.d.choice.name
				weighs = p.d.choice.byWeight
			}
			for _, c := range g.children {
				own, by := p.accepted(c)
				gs.Ledger.Accepted += own
				gs.Ledger.Acknowledged += own
				for at, n := range by {
					s.Listeners[at].Accepted += n
				}
				weight := -1
				if weighs && c.state == WorkerServing {
					weight = c.window.weight
				}
				open, _ := readCounters(c.page)
				sl := g.slot(c.id.Slot)
				gs.Workers = append(gs.Workers, WorkerStatus{
					ID: c.id, PID: c.proc.pid, State: c.state, Stalled: c.stalled, Started: c.born,
					Open: open, Weight: weight, Dispatched: c.window.dispatched, Unacked: len(c.window.unacked), Accepted: own,
					Restarts: sl.restarts, LastExit: sl.lastExit,
				})
			}
			slices.SortStableFunc(gs.Workers, func(a, b WorkerStatus) int { return a.ID.Slot - b.ID.Slot })
			s.Generations = append(s.Generations, gs)
		}
	})
	return s, err
}

// Ready says whether connections are being served. Workers that all stand still
// serve nobody.
func (p *Pool) Ready() (ready bool) {
	_ = p.do(func() {
		ready = p.serving != nil && p.serving.state == GenerationIsServing &&
			slices.ContainsFunc(p.serving.children, func(c *child) bool { return c.state == WorkerServing && !c.stalled })
	})
	return ready
}
