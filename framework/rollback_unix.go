//go:build unix

package framework

import (
	"context"
	"fmt"

	"github.com/baton-go/baton/internal/control"
)

// rollback starts the release that served before, from what is pinned of it.
func (m *master) rollback(ctx context.Context, from int) control.Verdict {
	began := m.deploys(ctx, m.o.ReadyTimeout)
	s, err := m.pool.Previous(from)
	if err != nil {
		return m.report(control.ActionRollback, began, control.Verdict{Reason: err.Error()})
	}
	s.Number = m.next
	m.next++
	m.pinnedEnv = s.Env
	err = m.pool.Prepare(ctx, s)
	if err == nil {
		err = m.commit(s.Number)
	}
	if err == nil {
		err = m.pool.Rolled(ctx)
	}
	m.pinnedEnv = nil
	if err != nil {
		return m.report(control.ActionRollback, began, m.refused(s.Number, err))
	}
	m.o.logger.Warn("rolled back, the next reload takes the binary on disk again", "generation", s.Number, "binary", s.Binary.Path)
	v := control.Verdict{OK: true, Generation: s.Number, Reason: "the binary on disk is another"}
	if from != 0 {
		v.Reason = fmt.Sprintf("generation %d crashed again and again; %s", from, v.Reason)
	}
	return m.report(control.ActionRollback, began, v)
}

// failing takes back a young generation whose workers keep dying.
func (m *master) failing(generation int) {
	go m.arbiter.ask(request{want: wantRollback, from: generation, answer: func(v control.Verdict) {
		if !v.OK {
			m.o.logger.Error("not rolled back", "generation", generation, "reason", v.Reason)
		}
	}})
}
