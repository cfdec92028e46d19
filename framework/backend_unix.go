//go:build unix

package framework

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/workers"
)

// backend is the master as the control socket sees it.
type backend struct{ m *master }

func (b backend) Reload(context.Context) control.Verdict {
	return b.m.arbiter.do(wantReload, control.ScaleRequest{})
}

func (b backend) Upgrade(context.Context) control.Verdict {
	return b.m.arbiter.do(wantUpgrade, control.ScaleRequest{})
}

func (b backend) Rollback(context.Context) control.Verdict {
	return b.m.arbiter.do(wantRollback, control.ScaleRequest{})
}

func (b backend) Scale(_ context.Context, r control.ScaleRequest) control.Verdict {
	return b.m.arbiter.do(wantScale, r)
}

func (b backend) Weight(_ context.Context, r control.WeightRequest) control.Verdict {
	return b.m.arbiter.await(request{want: wantWeight, weights: r.Weights})
}

func (b backend) Stop(_ context.Context, r control.StopRequest) control.Verdict {
	if r.Now {
		return b.m.arbiter.do(wantStopNow, control.ScaleRequest{})
	}
	return b.m.arbiter.do(wantStop, control.ScaleRequest{})
}

func (b backend) Healthy() error {
	_, err := b.m.pool.Status()
	return err
}

func (b backend) Ready() error {
	if b.m.arbiter.state() == stopping {
		return errors.New("the service stops")
	}
	if !b.m.pool.Ready() {
		return errors.New("no worker serves")
	}
	return nil
}

func (b backend) Status() control.Status {
	m := b.m
	s := control.Status{
		Schema: control.Schema,
		State:  m.arbiter.state().String(),
		Master: control.Master{
			PID: os.Getpid(), Started: m.started, RuntimeDir: m.dir.Path(),
			FDs: countFDs(), Goroutines: runtime.NumGoroutine(), Upgrades: m.upgrades,
		},
		LastDeploy: m.verdict.Load(),
	}
	if m.binary != nil {
		s.Master.Binary = binaryStatus(m.binary.Path, m.binary.Size, m.binary.MTime, m.binary.Build)
	}
	p, err := m.pool.Status()
	if err != nil {
		return s // it is ending
	}
	s.Accepting, s.Pending, s.Drained = p.Accepting, p.Pending, drainedStatus(p.Drained)
	for _, l := range p.Listeners {
		s.Listeners = append(s.Listeners, control.Listener{Name: l.Name, Network: l.Network, Address: l.Address, Accept: string(l.Mode), Accepted: l.Accepted})
	}
	for _, g := range p.Generations {
		s.Generations = append(s.Generations, generationStatus(g))
	}
	return s
}

func generationStatus(g workers.GenerationStatus) control.Generation {
	out := control.Generation{
		Number: g.Number, State: g.State.String(), Started: g.Started, Age: time.Since(g.Started).Seconds(),
		Workers: g.Wanted, Dispatch: g.Policy, Binary: binaryStatus(g.Path, g.Size, g.MTime, g.Build),
		Ledger: control.Ledger(g.Ledger), Drained: drainedStatus(g.Drained),
	}
	for _, w := range g.Workers {
		state := w.State.String()
		if w.Stalled && w.State == workers.WorkerServing {
			state = control.WorkerStalled
		}
		var weight *int
		if w.Weight >= 0 {
			weight = &w.Weight
		}
		out.Processes = append(out.Processes, control.Worker{
			ID: w.ID.String(), Slot: w.ID.Slot, PID: w.PID, State: state, Started: w.Started,
			Open: w.Open, Weight: weight, Dispatched: w.Dispatched, Unacked: w.Unacked, Accepted: w.Accepted, Restarts: w.Restarts, LastExit: w.LastExit,
		})
	}
	return out
}

func drainedStatus(d workers.Drained) control.Drained {
	return control.Drained{Moved: d.Moved, SoftDrained: d.SoftDrained, Finished: d.Finished, Cut: d.Cut}
}

func binaryStatus(path string, size int64, mtime time.Time, b workers.Build) control.Binary {
	return control.Binary{
		Path: path, Size: size, MTime: mtime, GoVersion: b.GoVersion, Module: b.Module,
		Version: b.Version, Revision: b.Revision, Modified: b.Modified,
	}
}

// countFDs is the number of open descriptors, 0 where that cannot be told.
func countFDs() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // the directory itself
}

// controlTime is how long verdicts under way are waited for at the end.
const controlTime = 2 * time.Second

// serveControl serves the control socket once this process is the master.
func (m *master) serveControl() error {
	select {
	case <-m.mayControl:
	case <-m.noControl:
		return nil
	}
	err := m.control.Serve(m.socket)
	<-m.noControl
	return err
}

func (m *master) stopControl() {
	close(m.noControl)
	ctx, cancel := context.WithTimeout(context.Background(), controlTime)
	defer cancel()
	_ = m.control.Shutdown(ctx)
}
