//go:build unix

package workers

import (
	"slices"
	"time"
)

// FosterServing adopts the orphans of the generation that served last, and
// returns its number, 0 if none of it has come. They go on accepting for
// themselves, and the pool accepts nothing: a Commit drains them, a Restore makes
// the pool their master in that, too.
func (p *Pool) FosterServing(o *Orphans) (number int) {
	_ = p.do(func() {
		p.orphans = o
		p.takeBeside(o)
		if p.stopping || p.serving != nil {
			return
		}
		ms := o.takeServing()
		if len(ms) == 0 {
			return
		}
		p.override = o.record.Override
		p.drained = p.drained.With(o.record.Drained)
		g := p.foster(ms[0], GenerationIsServing)
		p.serving = g
		p.known = map[string]bool{}
		for _, m := range ms {
			for _, key := range m.rec.Listeners {
				p.known[key] = true // all of a generation have the same
			}
			p.attach(g, m, WorkerServing)
		}
		p.retarget()
		number = g.number
	})
	return number
}

// FosterRest adopts all others, those that have come and those that will, and
// drains them.
func (p *Pool) FosterRest(o *Orphans) {
	_ = p.do(func() {
		p.orphans = o
		p.takeBeside(o)
		for _, m := range o.takeRest(p) {
			p.fosterLate(m)
		}
	})
}

// takeBeside takes the sockets that the dead master had for other slots.
func (p *Pool) takeBeside(o *Orphans) {
	for _, a := range p.acceptors {
		if err := p.regroup(a.key, o.beside(a.key)); err != nil {
			p.emit(KernelUnable{Listener: a.l.Name(), Reason: err.Error()})
		}
	}
}

// late adopts m, which has come after the others.
func (p *Pool) late(m *orphan) error {
	err := p.do(func() { p.fosterLate(m) })
	if err != nil {
		m.close()
	}
	return err
}

// takeServing takes out those of the last generation of which somebody serves.
func (o *Orphans) takeServing() (ms []*orphan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := 0
	for _, m := range o.came {
		if !m.draining {
			last = max(last, m.gen.Number)
		}
	}
	o.came = slices.DeleteFunc(o.came, func(m *orphan) bool {
		if m.draining || m.gen.Number != last {
			return false
		}
		ms = append(ms, m)
		return true
	})
	return ms
}

// takeRest takes out all that are left. Who comes later goes to p.
func (o *Orphans) takeRest(p *Pool) []*orphan {
	o.mu.Lock()
	defer o.mu.Unlock()
	ms := o.came
	o.came, o.pool = nil, p
	return ms
}

func (p *Pool) fosterLate(m *orphan) {
	if p.frozen { // the next master may be about to take this pool
		p.orphans.turnAway(m)
		return
	}
	g := p.find(m.gen.Number)
	if g != nil && g == p.serving && !m.draining && !p.stopping && m.rec.Slot <= g.wanted && !g.occupied(m.rec.Slot) {
		c := p.attach(g, m, WorkerServing)
		p.retarget()
		p.hush(c)
		return
	}
	if g == nil {
		g = p.foster(m, GenerationIsDraining)
	}
	timeout := p.options().DrainTimeout
	state := WorkerServing
	if m.draining {
		state = WorkerIsDraining
		if !m.rec.DrainBy.IsZero() {
			timeout = max(time.Until(m.rec.DrainBy), 0)
		}
	}
	if p.stopping {
		timeout = min(timeout, max(time.Until(p.stopBy), 0))
	}
	p.drainChild(p.attach(g, m, state), timeout, "its master has died")
	p.boundDraining()
}

// foster makes the generation of m this pool's.
func (p *Pool) foster(m *orphan, state GenerationState) *generation {
	gs := m.gen
	binary := adoptBinary(gs.Binary, m.binary)
	if m.binary == nil { // nobody may look into it: the path has to do
		if b, err := Pin(gs.Binary.Path); err == nil {
			binary = b
		}
	}
	m.binary = nil
	g := &generation{
		number: gs.Number, state: state, binary: binary, env: m.env, options: gs.Options,
		ledger: newLedger(gs.Number), wanted: max(gs.Wanted, 1), weights: gs.Weights, slots: map[int]*slot{}, introduced: true, speaks: gs.Protocol,
		born: gs.Born, served: gs.Served, drained: gs.Drained, outcome: gs.Outcome,
	}
	if state == GenerationIsDraining && g.drained.IsZero() {
		g.drained = time.Now()
	}
	g.ledger.restore(gs.Ledger)
	g.ledger.close()
	p.highest = max(p.highest, g.number)
	at, _ := slices.BinarySearchFunc(p.generations, g.number, func(o *generation, n int) int { return o.number - n })
	p.generations = slices.Insert(p.generations, at, g)
	return g
}

// attach makes m a worker of g.
func (p *Pool) attach(g *generation, m *orphan, state WorkerState) *child {
	ws := m.rec
	c := &child{
		started: started{proc: m.proc, conn: m.conn, page: m.page, crash: m.crash, nonce: ws.Nonce},
		id:      ID{Generation: g.number, Slot: ws.Slot}, gen: g, state: state, born: ws.Born, ready: ws.Ready,
		start: ws.Start, entrusted: true, later: g.speaks.Newest > protocol.Newest, readerDone: make(chan struct{}),
	}
	if m.binary != nil {
		m.binary.Close() // the generation has one
	}
	c.window = p.d.newWindow(c.conn, ws.Slot, g.ledger)
	c.window.page, c.window.dispatched, c.window.fostered = c.page, ws.Dispatched, true
	c.keys, c.window.numbers = ws.Listeners, p.numbers(ws.Listeners)
	c.licences = make([]licenceState, len(ws.Listeners))
	g.slot(ws.Slot).restarts = ws.Restarts
	g.children = append(g.children, c)
	c.say(msgAdopted, encode(takeover{Protocol: protocol}))
	p.tell(c)
	p.emit(WorkerAdopted{Worker: c.id, PID: c.proc.pid, Draining: state == WorkerIsDraining || g.state == GenerationIsDraining})
	go p.read(c, c.readerDone)
	go p.watch(c)
	return c
}

// Restore makes an adopted generation whole that goes on serving, because the
// one that was to replace it failed in the last moment.
func (p *Pool) Restore() {
	p.post(func() {
		g := p.serving
		if g == nil || g.state != GenerationIsServing || p.stopping {
			return
		}
		p.succeeds = false
		p.retarget()
		p.acceptKnown()
		p.fill(g)
		for _, c := range g.children {
			if c.expected && c.state == WorkerServing {
				p.awaitOther(c)
			}
		}
		for _, c := range g.children {
			p.hush(c)
		}
	})
}

// Has says whether a worker with that pid is this pool's.
func (p *Pool) Has(pid int) (has bool) {
	_ = p.do(func() {
		for _, g := range p.generations {
			has = has || slices.ContainsFunc(g.children, func(c *child) bool { return c.proc.pid == pid })
		}
	})
	return has
}
