//go:build unix

package framework

import (
	"testing"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/workers"
)

func TestTheStatusIsALine(t *testing.T) {
	in := func(states ...workers.WorkerState) (ws []workers.WorkerStatus) {
		for _, s := range states {
			ws = append(ws, workers.WorkerStatus{State: s})
		}
		return ws
	}
	const s, d = workers.WorkerServing, workers.WorkerIsDraining
	serves := func(n, wanted int, ws []workers.WorkerStatus) workers.GenerationStatus {
		return workers.GenerationStatus{Number: n, State: workers.GenerationIsServing, Wanted: wanted, Workers: ws}
	}
	drains := func(n int, ws []workers.WorkerStatus) workers.GenerationStatus {
		return workers.GenerationStatus{Number: n, State: workers.GenerationIsDraining, Wanted: len(ws), Workers: ws}
	}
	for _, c := range []struct {
		phase phase
		gens  []workers.GenerationStatus
		last  *control.Verdict
		want  string
	}{
		{starting, nil, nil, "starting"},
		{serving, []workers.GenerationStatus{serves(1, 1, in(s))}, nil, "generation 1 serving with 1 worker"},
		{
			serving, []workers.GenerationStatus{drains(5, in(d, d)), drains(6, in(d, d, d, d)), serves(7, 4, in(s, s, s, s))}, nil,
			"generation 7 serving with 4 workers; 6 draining",
		},
		{reloading, []workers.GenerationStatus{serves(7, 4, in(s, s, s))}, nil, "reloading; generation 7 serving with 3 of 4 workers"},
		{
			serving, []workers.GenerationStatus{serves(7, 2, in(s, s))}, &control.Verdict{Action: "reload", Reason: "worker 8.1: exit status 1"},
			"generation 7 serving with 2 workers; last reload refused: worker 8.1: exit status 1",
		},
		{stopping, []workers.GenerationStatus{drains(7, in(d))}, nil, "stopping; 1 draining"},
	} {
		if got := statusLine(c.phase, workers.Status{Generations: c.gens}, c.last); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
