package workers

import (
	"fmt"
	"slices"
	"testing"
)

func TestMovesAreThoseOfTheTable(t *testing.T) {
	t.Run("worker", func(t *testing.T) {
		const s, r, v, d, k, g = WorkerStarting, WorkerIsReady, WorkerServing, WorkerIsDraining, WorkerIsKilled, WorkerIsGone
		checkMoves(t, len(workerStates), workerMoves, map[WorkerState][]WorkerState{
			s: {r, d, k, g}, r: {v, d, k, g}, v: {d, k, g}, d: {k, g}, k: {g}, g: nil,
		})
	})
	t.Run("generation", func(t *testing.T) {
		const s, r, v, d, x, g = GenerationStarting, GenerationIsReady, GenerationIsServing, GenerationIsDraining, GenerationIsDiscarded, GenerationIsGone
		checkMoves(t, len(generationStates), generationMoves, map[GenerationState][]GenerationState{
			s: {r, x}, r: {v, x}, v: {d, g}, d: {g}, x: {g}, g: nil,
		})
	})
}

func checkMoves[S interface {
	~int
	fmt.Stringer
}](t *testing.T, n int, table, want map[S][]S) {
	if len(table) != n {
		t.Errorf("%d states in the table, %d names", len(table), n)
	}
	for from := S(0); int(from) < n; from++ {
		for to := S(0); int(to) < n; to++ {
			allowed := slices.Contains(want[from], to)
			s := from
			panicked := func() (p bool) {
				defer func() { p = recover() != nil }()
				move(&s, to, table)
				return false
			}()
			if panicked == allowed {
				t.Errorf("%v to %v: panicked = %v", from, to, panicked)
			}
			if after := s; (after == to) != allowed && from != to {
				t.Errorf("%v to %v: is %v after it", from, to, after)
			}
		}
	}
}
