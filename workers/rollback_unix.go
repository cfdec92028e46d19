//go:build unix

package workers

import (
	"errors"
	"time"
)

// The release that served before the present one stays pinned, so that a
// release that only fails once it serves can be taken back.

// release is what a generation was started from.
type release struct {
	binary  *Binary
	env     []string
	options Options
}

// ErrNoPrevious: there is no earlier release to go back to.
var ErrNoPrevious = errors.New("there is no earlier release to go back to")

// minCrashes and crashShare make the budget of a young generation: so many
// workers may die, and at least one in so many. A single bad request, and the
// one or two that follow it, are no reason to take a release back.
const (
	minCrashes = 3
	crashShare = 2
)

// outlive keeps the release of g, which has just been replaced by next. One
// that came by a rollback is not followed by another: the two would take turns.
func (p *Pool) outlive(g, next *generation) {
	p.forget()
	if next.rollback {
		return
	}
	if b, err := g.binary.again(); err == nil {
		p.previous = &release{binary: b, env: g.env, options: g.options}
	}
}

// forget gives the previous release up.
func (p *Pool) forget() {
	if p.previous != nil {
		_ = p.previous.binary.Close()
		p.previous = nil
	}
}

// Previous returns what to start to go back from generation number, or from the
// one that serves if number is 0. Number is the caller's to fill in.
func (p *Pool) Previous(number int) (s Spec, err error) {
	if stopped := p.do(func() {
		switch {
		case p.previous == nil || p.serving == nil:
			err = ErrNoPrevious
			return
		case number != 0 && p.serving.number != number:
			err = errors.New("that generation serves no more")
			return
		}
		var b *Binary
		if b, err = p.previous.binary.again(); err == nil {
			o := p.previous.options
			s = Spec{Binary: b, Env: p.previous.env, Rollback: true, ReadyTimeout: o.ReadyTimeout, KillTimeout: o.KillTimeout}
		}
	}); stopped != nil {
		return Spec{}, stopped
	}
	return s, err
}

// crashed counts the deaths in a young generation. Beyond its budget the master
// is told, once, and may take the release back.
func (p *Pool) crashed(g *generation, why string) {
	age := time.Since(g.served)
	if p.previous == nil || g.failing || age >= g.options.BakeTime {
		return
	}
	if g.crashes++; g.crashes < max(minCrashes, g.wanted/crashShare) {
		return
	}
	g.failing = true
	p.emit(GenerationFailing{Generation: g.number, Crashes: g.crashes, After: age, Reason: why})
	if p.cfg.OnFailing != nil {
		p.cfg.OnFailing(g.number)
	}
}
