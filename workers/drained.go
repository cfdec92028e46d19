package workers

import "slices"

// Tally counts connections by reason or kind.
type Tally map[string]int

// Total is the sum of the counts.
func (t Tally) Total() int {
	n := 0
	for _, v := range t {
		n += v
	}
	return n
}

// with returns the sums of t and o.
func (t Tally) with(o Tally) Tally {
	out := make(Tally, max(len(t), len(o)))
	for _, from := range []Tally{t, o} {
		for reason, n := range from {
			out[reason] += n
		}
	}
	return out
}

// Drained is what became of the connections of a worker or a generation that
// drained: each is counted once.
type Drained struct {
	// Moved connections were handed on to the serving generation: "idle" ones,
	// "new" ones that had not sent a byte yet, and those of Handoff, "handoff".
	Moved Tally `json:"moved"`
	// SoftDrained connections ended after they had been told to, each in the way
	// of its kind: "http1", "tls" (HTTP/1 under TLS), "http2", "hijacked".
	SoftDrained Tally `json:"soft_drained"`
	// Finished connections ended by themselves, by the same kinds, or "other"
	// for those of a Serve function.
	Finished Tally `json:"finished"`
	// Cut connections were open at the "deadline", or when their worker "died".
	Cut Tally `json:"cut"`
}

// With returns the sums of d and o.
func (d Drained) With(o Drained) Drained {
	return Drained{
		Moved: d.Moved.with(o.Moved), SoftDrained: d.SoftDrained.with(o.SoftDrained),
		Finished: d.Finished.with(o.Finished), Cut: d.Cut.with(o.Cut),
	}
}

// Reasons of a cut.
const (
	CutDeadline = "deadline"
	CutDied     = "died"
)

// drainReasons are those that a master believes its workers.
var drainReasons = []string{"idle", "new", "handoff", "http1", "tls", "http2", "hijacked", "other", CutDeadline, CutDied}

// believed makes what a worker reports something that can be. What a later
// release counts and this one does not know is "other".
func (d Drained) believed() Drained {
	for _, t := range []*Tally{&d.Moved, &d.SoftDrained, &d.Finished, &d.Cut} {
		known := Tally{}
		for reason, n := range *t {
			if !slices.Contains(drainReasons, reason) {
				reason = "other"
			}
			known[reason] = counted(known[reason] + counted(n))
		}
		*t = known
	}
	return d
}

const maxCounted = 1<<31 - 1

// counted makes a number of a worker's one that can be.
func counted[N int | int64](n N) N { return min(max(n, 0), maxCounted) }
