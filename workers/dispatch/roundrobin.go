package dispatch

// RoundRobin returns a policy that is strict: each connection goes to the next
// slot that has room, whatever else its worker has to do. Every call returns a
// policy with a turn of its own.
func RoundRobin() Policy { return &roundRobin{last: -1} }

type roundRobin struct {
	// last is a slot, not an index: when workers before it come or go, the
	// indices shift, and the turn must not.
	last int
}

func (*roundRobin) Name() string { return "round-robin" }

func (r *roundRobin) Pick(_ Conn, ws []Worker) int {
	first := -1
	for i := range ws {
		if ws[i].Free <= 0 {
			continue
		}
		if ws[i].Slot > r.last {
			r.last = ws[i].Slot
			return i
		}
		if first < 0 {
			first = i
		}
	}
	// Past the last slot: around to the first with room.
	if first >= 0 {
		r.last = ws[first].Slot
	}
	return first
}
