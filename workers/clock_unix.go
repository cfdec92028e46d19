//go:build unix

package workers

import (
	"time"

	"golang.org/x/sys/unix"
)

// Times that go from one process to another go with what the clocks said when they
// were written down. Who reads them counts by the clock that nobody sets: the time
// of day may have been set meanwhile, by an operator, by NTP, or in a machine that
// had slept, and no worker is drained for longer or shorter because of that.

// reading is what the clocks said at one moment.
type reading struct {
	Wall time.Time     `json:"wall"` // the time of day, to which the other times relate
	Ran  time.Duration `json:"ran"`  // by the monotonic clock, the same in all processes
}

// clocks are the two; variables for tests only.
type clocks struct {
	wall func() time.Time
	ran  func() (time.Duration, error)
}

var theClocks = clocks{wall: time.Now, ran: func() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()), err
}}

// dated is a document with times in it; times calls f for each.
type dated interface{ times(f func(*time.Time)) }

// write makes the times of d relate to the reading that it returns, nil where
// there is no such clock. d must share nothing that others read.
func (c clocks) write(d dated) *reading {
	ran, err := c.ran()
	if err != nil {
		return nil
	}
	at := &reading{Wall: c.wall().Round(0), Ran: ran}
	d.times(func(t *time.Time) {
		if !t.IsZero() {
			*t = at.Wall.Add(-time.Since(*t)) // by the monotonic clock, if t has it
		}
	})
	return at
}

// read makes the times of d, which relate to at, this process's. Without at, of a
// build that did not write it, they are taken as they are.
func (c clocks) read(d dated, at *reading) {
	if at == nil {
		return
	}
	ran, err := c.ran()
	if err != nil || ran < at.Ran { // of a machine that was started since
		return
	}
	now := c.wall()
	d.times(func(t *time.Time) {
		if !t.IsZero() {
			*t = now.Add(t.Sub(at.Wall) - (ran - at.Ran))
		}
	})
}

func (g *generationRecord) times(f func(*time.Time)) {
	for _, t := range []*time.Time{&g.Born, &g.Served, &g.Drained} {
		f(t)
	}
	for i := range g.Workers {
		w := &g.Workers[i]
		for _, t := range []*time.Time{&w.Born, &w.Ready, &w.DrainBy} {
			f(t)
		}
		for j := range w.Unacked {
			f(&w.Unacked[j].At)
		}
	}
}

func (r *poolRecord) times(f func(*time.Time)) {
	for i := range r.Generations {
		r.Generations[i].times(f)
	}
}

func (h *handover) times(f func(*time.Time)) {
	for i := range h.Queue {
		f(&h.Queue[i].At)
	}
	for i := range h.Generations {
		h.Generations[i].times(f)
	}
}

// encode writes r down as of now.
func (r poolRecord) encode() []byte {
	r.Clocks = theClocks.write(&r)
	return encode(r)
}

func (h handover) encode() []byte {
	h.Clocks = theClocks.write(&h)
	return encode(h)
}
