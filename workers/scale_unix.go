//go:build unix

package workers

import (
	"errors"
	"slices"
	"time"
)

// Scale sets the number of workers, and keeps it through reloads.
func (p *Pool) Scale(n int) error {
	var err error
	if stopped := p.do(func() {
		if p.frozen {
			err = errors.New("the workers are being handed over")
			return
		}
		p.override = n
		p.record.changed.Store(true)
		g := p.serving
		if g == nil || p.stopping || p.rolling != nil { // which ends with so many
			return
		}
		g.wanted = n
		p.resize(g)
	}); stopped != nil {
		return stopped
	}
	return err
}

// resize gives g the workers that it should have.
func (p *Pool) resize(g *generation) {
	p.drainBeyond(g, g.options.DrainTimeout, "fewer workers wanted")
	p.fill(g)
}

// drainBeyond drains the workers that g should not have.
func (p *Pool) drainBeyond(g *generation, timeout time.Duration, reason string) {
	for n, s := range g.slots {
		if !g.wants(n) && s.timer != nil {
			s.timer.Stop()
			s.timer = nil
		}
	}
	for _, c := range slices.Clone(g.children) {
		if !g.wants(c.id.Slot) && !c.expected {
			p.drainChild(c, timeout, reason)
		}
	}
}

// Override returns what Scale was last called with, 0 if it never was.
func (p *Pool) Override() (n int) {
	_ = p.do(func() { n = p.override })
	return n
}

// Wanted returns how many workers the serving generation should have.
func (p *Pool) Wanted() (n int) {
	_ = p.do(func() {
		if p.serving != nil {
			n = p.serving.wanted
		}
	})
	return n
}
