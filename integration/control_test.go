//go:build linux

package integration

import (
	"context"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

const (
	waitTime    = 10 * time.Second // for a status or a log line
	verdictTime = time.Minute      // for a deploy: ReadyTimeout, tableflip's margin, and some
)

func deadline(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// tryStatus asks for the status; any goroutine may.
func (s *service) tryStatus() (control.Status, error) {
	ctx, cancel := deadline(waitTime)
	defer cancel()
	st, err := s.client.Status(ctx)
	if err == nil {
		s.seeFromOutside(&st)
		s.mu.Lock()
		s.last, s.master = st, st.Master.PID
		s.mu.Unlock()
	}
	return st, err
}

// status asks for the status. There is one at any time, upgrades included.
func (s *service) status() control.Status {
	s.t.Helper()
	st, err := s.tryStatus()
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// waitStatus waits until the status is as described.
func (s *service) waitStatus(what string, f func(control.Status) bool) control.Status {
	s.t.Helper()
	return s.waitStatusFor(waitTime, what, f)
}

func (s *service) waitStatusFor(bound time.Duration, what string, f func(control.Status) bool) control.Status {
	s.t.Helper()
	var st control.Status
	eventually(s.t, bound, what, func() bool {
		var err error
		st, err = s.tryStatus()
		return err == nil && f(st)
	})
	return st
}

// masterPID returns the pid of the master that answers now.
func (s *service) masterPID() int {
	s.t.Helper()
	return s.status().Master.PID
}

// serving returns the generation that serves, nil if none does.
func serving(st control.Status) *control.Generation {
	for i, g := range st.Generations {
		if g.State == control.GenerationServing {
			return &st.Generations[i]
		}
	}
	return nil
}

// serving returns the generation that serves.
func (s *service) serving() control.Generation {
	s.t.Helper()
	st := s.status()
	g := serving(st)
	if g == nil {
		s.t.Fatalf("no generation serves: %+v", st)
	}
	return *g
}

// workers returns the processes of the generation that serves.
func (s *service) workers() []control.Worker {
	s.t.Helper()
	return s.serving().Processes
}

func (s *service) verdict(what string, ask func(context.Context) (control.Verdict, error)) control.Verdict {
	s.t.Helper()
	ctx, cancel := deadline(verdictTime)
	defer cancel()
	v, err := ask(ctx)
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	return v
}

// reload asks for a reload and returns the verdict, as all that follow.
func (s *service) reload() control.Verdict {
	s.t.Helper()
	return s.verdict("reload", s.client.Reload)
}

// upgrade asks for an upgrade, and waits until the new master answers.
func (s *service) upgrade() control.Verdict {
	s.t.Helper()
	before := s.masterPID()
	v := s.verdict("upgrade", s.client.Upgrade)
	if v.OK {
		s.waitStatus("the new master answers", func(st control.Status) bool { return st.Master.PID != before })
	}
	return v
}

// scale asks for n workers.
func (s *service) scale(n int) control.Verdict {
	s.t.Helper()
	return s.verdict("scale", func(ctx context.Context) (control.Verdict, error) {
		return s.client.Scale(ctx, control.ScaleRequest{Workers: &n})
	})
}

// stop begins to stop the service.
func (s *service) stop() control.Verdict {
	s.t.Helper()
	return s.verdict("stop", func(ctx context.Context) (control.Verdict, error) {
		return s.client.Stop(ctx, control.StopRequest{})
	})
}

// checkLedger checks that every connection is accounted for.
func checkLedger(t *testing.T, st control.Status) {
	t.Helper()
	for _, g := range st.Generations {
		l := g.Ledger
		if sum := l.Acknowledged + l.Pending + l.Redispatched + l.RefusedTotal(); l.Accepted != sum {
			t.Errorf("ledger of generation %d: accepted %d, but acknowledged %d + pending %d + redispatched %d + refused %v = %d",
				g.Number, l.Accepted, l.Acknowledged, l.Pending, l.Redispatched, l.Refused, sum)
		}
	}
}
