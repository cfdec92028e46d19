//go:build unix

package framework

import (
	"fmt"
	"strings"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/workers"
)

// describe is the service on one line, for systemctl status.
func (m *master) describe() string {
	state := m.arbiter.state()
	p, err := m.pool.Status()
	if err != nil {
		return state.String() // it is ending
	}
	return statusLine(state, p, m.verdict.Load())
}

// statusLine says as in "generation 7 serving with 4 workers; 6 draining".
func statusLine(state phase, p workers.Status, last *control.Verdict) string {
	var parts []string
	if state != serving {
		parts = append(parts, state.String())
	}
	draining := 0
	for _, g := range p.Generations {
		serves := 0
		for _, w := range g.Workers {
			switch w.State {
			case workers.WorkerServing:
				serves++
			case workers.WorkerIsDraining:
				draining++
			}
		}
		if g.State != workers.GenerationIsServing {
			continue
		}
		s := fmt.Sprintf("generation %d serving with %d worker", g.Number, serves)
		if serves < g.Wanted {
			s = fmt.Sprintf("generation %d serving with %d of %d worker", g.Number, serves, g.Wanted)
		}
		if max(serves, g.Wanted) != 1 {
			s += "s"
		}
		parts = append(parts, s)
	}
	if draining > 0 {
		parts = append(parts, fmt.Sprintf("%d draining", draining))
	}
	if last != nil && !last.OK && state == serving {
		parts = append(parts, fmt.Sprintf("last %s refused: %s", last.Action, last.Reason))
	}
	return strings.Join(parts, "; ")
}
