//go:build unix

package workers

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/baton-go/baton/workers/dispatch"
)

// rule is how connections are dispatched while g serves. A policy of the same
// name is the same one: its turn goes on.
func (p *Pool) rule(g *generation) rule {
	r := rule{weights: g.weights}
	name := g.options.Dispatch
	if name == "" {
		name = dispatch.RoundRobin().Name()
	}
	if name == p.policy {
		return r
	}
	p.policy = name
	var err error
	if r.policy, err = p.cfg.Policies(name); err != nil {
		// Of a generation that another master has left us.
		p.emit(PolicyFailed{Policy: name, Reason: err.Error()})
		r.policy = dispatch.RoundRobin()
	}
	return r
}

// SetWeights changes the weights of some slots of the serving generation, and
// returns those of all. They hold for whoever is in the slot, as long as the
// generation serves; the next one begins with its own.
//
// Either all are set or none. It is an error if the generation's policy knows no
// weights, if it has no such slot, and if a weight is not from 0 to
// dispatch.MaxWeight.
func (p *Pool) SetWeights(weights map[int]int) (all map[int]int, err error) {
	stopped := p.do(func() {
		if err = p.mayWeigh(weights); err != nil {
			return
		}
		g := p.serving
		set := maps.Clone(weights)
		for slot, weight := range g.weights {
			if _, ok := set[slot]; !ok {
				set[slot] = weight
			}
		}
		g.weights = set // the dispatcher may have the one before
		p.retarget()
		p.record.changed.Store(true)
		all = p.d.weightsOf(g.wanted)
	})
	return all, errors.Join(stopped, err)
}

func (p *Pool) mayWeigh(weights map[int]int) error {
	g := p.serving
	switch {
	case p.stopping:
		return ErrStopped
	case p.frozen:
		return errors.New("the workers are being handed over")
	case g == nil:
		return errors.New("no generation serves")
	}
	p.d.mu.Lock()
	name, weighs := p.d.choice.name, p.d.choice.byWeight
	p.d.mu.Unlock()
	if !weighs {
		return fmt.Errorf("dispatch by %s, which knows no weights", name)
	}
	for _, slot := range slices.Sorted(maps.Keys(weights)) {
		if slot < 1 || slot > g.wanted {
			return fmt.Errorf("slot %d: expected 1 to %d", slot, g.wanted)
		}
		if w := weights[slot]; w < 0 || w > dispatch.MaxWeight {
			return fmt.Errorf("weight %d of slot %d: expected 0 to %d", w, slot, dispatch.MaxWeight)
		}
	}
	return nil
}

// weightsOf returns the weights of n slots, whether somebody is in them or not.
func (d *dispatcher) weightsOf(n int) map[int]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[int]int, n)
	defer d.survive()
	for slot := 1; slot <= n; slot++ {
		all[slot] = d.weightOf(slot)
	}
	return all
}
