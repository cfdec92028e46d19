package dispatch_test

import (
	"slices"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

// slots makes a worker with room for each slot.
func slots(s ...int) []dispatch.Worker {
	ws := make([]dispatch.Worker, len(s))
	for i, n := range s {
		ws[i] = dispatch.Worker{Slot: n, Free: 100}
	}
	return ws
}

// full takes the room of some slots away.
func full(ws []dispatch.Worker, s ...int) []dispatch.Worker {
	for i := range ws {
		if slices.Contains(s, ws[i].Slot) {
			ws[i].Free = 0
		}
	}
	return ws
}

// picks returns the slots of the next n picks; -1 stands for nobody.
func picks(p dispatch.Policy, ws []dispatch.Worker, n int) []int {
	var got []int
	for i := range n {
		at := p.Pick(dispatch.Conn{ID: uint64(i)}, ws)
		if at >= 0 {
			at = ws[at].Slot
		}
		got = append(got, at)
	}
	return got
}

func TestRoundRobinIsStrict(t *testing.T) {
	p := dispatch.RoundRobin()
	if p.Name() != "round-robin" {
		t.Errorf("Name() = %q", p.Name())
	}
	got := picks(p, slots(0, 1, 2, 3), 100)
	for i, slot := range got {
		if slot != i%4 {
			t.Fatalf("connection %d went to slot %d: %v", i, slot, got)
		}
	}
}

func TestRoundRobinFollowsTheSlots(t *testing.T) {
	type step struct {
		ws   []dispatch.Worker
		want []int
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"nobody", []step{{nil, []int{-1, -1}}}},
		{"one", []step{{slots(0), []int{0, 0, 0}}}},
		{"gaps between slots", []step{{slots(2, 5, 9), []int{2, 5, 9, 2}}}},
		{"full ones are skipped", []step{
			{full(slots(0, 1, 2, 3), 1), []int{0, 2, 3, 0, 2}},
			{slots(0, 1, 2, 3), []int{3, 0, 1, 2}},
		}},
		{"all full, and the turn is kept", []step{
			{slots(0, 1, 2), []int{0}},
			{full(slots(0, 1, 2), 0, 1, 2), []int{-1, -1}},
			{slots(0, 1, 2), []int{1, 2, 0}},
		}},
		{"one before the turn dies and is respawned", []step{
			{slots(0, 1, 2, 3), []int{0, 1}},
			{slots(1, 2, 3), []int{2}},
			{slots(0, 1, 2, 3), []int{3, 0, 1}},
		}},
		{"the one whose turn it was dies", []step{
			{slots(0, 1, 2, 3), []int{0, 1}},
			{slots(0, 2, 3), []int{2, 3, 0, 2}},
		}},
		{"the next one dies", []step{
			{slots(0, 1, 2, 3), []int{0, 1}},
			{slots(0, 1, 3), []int{3, 0, 1, 3}},
		}},
		{"scaled down past the turn", []step{
			{slots(0, 1, 2, 3), []int{0, 1, 2, 3, 0, 1, 2}},
			{slots(0, 1), []int{0, 1, 0}},
		}},
		{"scaled up", []step{
			{slots(0, 1), []int{0, 1}},
			{slots(0, 1, 2, 3), []int{2, 3, 0, 1}},
		}},
		{"less than no room is no room", []step{
			{[]dispatch.Worker{{Slot: 0, Free: -1}, {Slot: 1, Free: 1}}, []int{1, 1}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := dispatch.RoundRobin()
			for i, s := range tt.steps {
				if got := picks(p, s.ws, len(s.want)); !slices.Equal(got, s.want) {
					t.Errorf("step %d: picked %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// TestRoundRobinStaysFairWhileWorkersComeAndGo takes a slot out for a while, in
// turn: nobody who is there all the time gets more than the others.
func TestRoundRobinStaysFairWhileWorkersComeAndGo(t *testing.T) {
	p := dispatch.RoundRobin()
	var got [5]int
	for round := range 4 {
		var there []int
		for slot := range 5 {
			if slot != round {
				there = append(there, slot)
			}
		}
		for _, slot := range picks(p, slots(there...), 40) {
			got[slot]++
		}
	}
	// Four rounds of ten for slot 4, three for the others, give or take the
	// turn at which a round begins.
	for slot, want := range [5]int{30, 30, 30, 30, 40} {
		if d := got[slot] - want; d < -1 || d > 1 {
			t.Errorf("slot %d got %d connections, want %d: %v", slot, got[slot], want, got)
		}
	}
}

func TestRoundRobinsAreIndependent(t *testing.T) {
	a, b := dispatch.RoundRobin(), dispatch.RoundRobin()
	ws := slots(0, 1, 2)
	picks(a, ws, 2)
	if got := picks(b, ws, 1); got[0] != 0 {
		t.Errorf("a new policy begins at slot %d", got[0])
	}
}

func TestListenersTakeTurnsOfTheirOwn(t *testing.T) {
	p := dispatch.RoundRobin()
	ws := []dispatch.Worker{{Slot: 1, Free: 9}, {Slot: 2, Free: 9}}
	got := map[int][]int{}
	for range 4 {
		for l := range 2 { // alternating
			got[l] = append(got[l], ws[p.Pick(dispatch.Conn{Listener: l}, ws)].Slot)
		}
	}
	for l, slots := range got {
		if want := []int{1, 2, 1, 2}; !slices.Equal(slots, want) {
			t.Errorf("listener %d: slots %v, want %v", l, slots, want)
		}
	}
}
