package framework

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/baton-go/baton/workers"
)

// logger writes a line for each event that an operator should see; the course
// of single workers is at debug level.
type logger struct{ *slog.Logger }

func (l logger) event(e workers.Event) {
	switch e := e.(type) {
	case workers.GenerationServing:
		l.Info(fmt.Sprintf("generation %d serving", e.Generation), "workers", e.Workers,
			"revision", short(e.Revision), "took", round(e.Took), "previous", e.Previous)
	case workers.GenerationRolled:
		l.Info(fmt.Sprintf("generation %d has replaced generation %d", e.Generation, e.Previous), "workers", e.Workers, "took", round(e.Took))
	case workers.GenerationDrained:
		level := l.Info
		d := e.Drained
		if d.Cut.Total() > 0 {
			level = l.Warn
		}
		level(fmt.Sprintf("generation %d drained", e.Generation), "moved", d.Moved.Total(),
			"soft_drained", d.SoftDrained.Total(), "finished", d.Finished.Total(), "cut", d.Cut.Total(), "took", round(e.Took))
	case workers.GenerationRefused:
		args := []any{"reason", e.Reason}
		if e.Stderr != "" {
			args = append(args, "stderr", e.Stderr)
		}
		l.Error(fmt.Sprintf("generation %d refused", e.Generation), args...)
	case workers.GenerationFailing:
		l.Error(fmt.Sprintf("generation %d fails", e.Generation), "crashes", e.Crashes, "after", round(e.After), "reason", e.Reason)
	case workers.WorkerForked:
		l.Debug("worker forked", "worker", e.Worker.String(), "pid", e.PID, "restart", e.Restart)
	case workers.WorkerUnstarted:
		l.Error("worker not started", "worker", e.Worker.String(), "reason", e.Reason, "respawn", round(e.Respawn))
	case workers.WorkerReady:
		l.Debug("worker ready", "worker", e.Worker.String(), "pid", e.PID, "took", round(e.Took))
	case workers.WorkerDraining:
		l.Debug("worker draining", "worker", e.Worker.String(), "pid", e.PID, "reason", e.Reason)
	case workers.WorkerMisbehaved:
		l.Error("worker breaks the protocol, it is replaced", "worker", e.Worker.String(), "pid", e.PID, "reason", e.Reason)
	case workers.WorkerStalled:
		l.Warn("worker does not answer, it gets no connections", "worker", e.Worker.String(), "pid", e.PID, "for", round(e.For))
	case workers.WorkerResumed:
		l.Info("worker answers again", "worker", e.Worker.String(), "pid", e.PID)
	case workers.WorkerKilled:
		l.Warn("worker killed", "worker", e.Worker.String(), "pid", e.PID, "reason", e.Reason)
	case workers.WorkerExited:
		if e.Expected || e.Starting {
			l.Debug("worker exited", "worker", e.Worker.String(), "pid", e.PID, "status", e.Status, "cut", e.Cut)
			return
		}
		args := []any{"worker", e.Worker.String(), "pid", e.PID, "status", e.Status, "cut", e.Cut, "requeued", e.Requeued}
		if e.Respawn >= 0 {
			args = append(args, "respawn", round(e.Respawn))
		}
		if e.Output != "" {
			args = append(args, "output", e.Output)
		}
		l.Error("worker died", args...)
	case workers.WorkerAdopted:
		l.Info("worker adopted", "worker", e.Worker.String(), "pid", e.PID, "draining", e.Draining)
	case workers.PolicyFailed:
		args := []any{"policy", e.Policy, "reason", e.Reason}
		if e.Stack != "" {
			args = append(args, "stack", e.Stack)
		}
		l.Error("round-robin in place of the dispatch policy", args...)
	case workers.RecordFailed:
		l.Error("the record of the workers cannot be written, they leave if this master is killed", "reason", e.Reason)
	case workers.RecordWritten:
		l.Info("the record of the workers is written again")
	case workers.AcceptPaused:
		l.Warn("accepting paused, connections wait in the kernel's queue", "listener", e.Listener, "reason", e.Reason)
	case workers.AcceptResumed:
		l.Info("accepting again", "listener", e.Listener, "after", round(e.After))
	case workers.KernelUnable:
		l.Warn("the master accepts in place of the kernel's round-robin", "listener", e.Listener, "reason", e.Reason)
	}
}

func round(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// short is a revision as people write it.
func short(revision string) string {
	if len(revision) > 7 {
		return revision[:7]
	}
	if revision == "" {
		return "unknown"
	}
	return revision
}
