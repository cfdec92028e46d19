//go:build unix

package workers

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDrainedSums(t *testing.T) {
	a := Drained{Moved: Tally{"idle": 2}, Cut: Tally{CutDied: 1}}
	b := Drained{Moved: Tally{"idle": 1, "new": 4}, Finished: Tally{"http1": 3}}
	sum := a.With(b)
	want := Drained{Moved: Tally{"idle": 3, "new": 4}, SoftDrained: Tally{}, Finished: Tally{"http1": 3}, Cut: Tally{CutDied: 1}}
	if d := cmp.Diff(want, sum); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
	if sum.Moved["idle"]++; a.Moved["idle"] != 2 || sum.Moved.Total() != 8 {
		t.Errorf("sum shares a map with its parts, or total is %d", sum.Moved.Total())
	}
}

// What a worker reports cannot grow its master, or make its numbers absurd.
func TestReportIsBelievedWithinReason(t *testing.T) {
	wild := Drained{Moved: Tally{"idle": -5, "new": math.MaxInt}, Finished: Tally{}}
	for i := range 1000 {
		wild.Finished[string(rune('a'+i%26))+string(rune('a'+i/26))] = 1
	}
	want := Drained{Moved: Tally{"idle": 0, "new": maxCounted}, SoftDrained: Tally{}, Finished: Tally{}, Cut: Tally{}}
	want.Finished["other"] = len(wild.Finished)
	if d := cmp.Diff(want, wild.believed()); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
}
