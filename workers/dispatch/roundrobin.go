package dispatch

// RoundRobin returns a policy that is strict: each connection goes to the next
// slot that has room, whatever else its worker has to do. Every listener has a
// turn of its own: with one for all, listeners whose connections alternate
// would each feed the same half of the workers.
//
// Its name is round-robin.
func RoundRobin() Policy { return &roundRobin{} }

type roundRobin struct{ turns turns }

func (*roundRobin) Name() string { return "round-robin" }

func (r *roundRobin) Pick(c Conn, ws []Worker) int {
	last := r.turns.of(c.Listener)
	first := -1
	for i := range ws {
		if ws[i].Free <= 0 {
			continue
		}
		if ws[i].Slot > *last {
			*last = ws[i].Slot
			return i
		}
		if first < 0 {
			first = i
		}
	}
	// Past the last slot: around to the first with room.
	if first >= 0 {
		*last = ws[first].Slot
	}
	return first
}

// turns has the slot, not the index, that each listener's latest connection went
// to: when workers before it come or go, the indices shift, and the turn must
// not.
type turns struct{ last []int }

func (t *turns) of(listener int) *int {
	for len(t.last) <= listener {
		t.last = append(t.last, -1)
	}
	return &t.last[listener]
}
