//go:build unix

package workers

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// machine is one whose clocks are set at will.
type machine struct {
	ran  time.Duration
	wall time.Time
	err  error
}

func (m machine) clocks() clocks {
	return clocks{wall: func() time.Time { return m.wall }, ran: func() (time.Duration, error) { return m.ran, m.err }}
}

// close says whether two durations are the same but for what a test takes.
func near(a, b time.Duration) bool { return (a - b).Abs() < 2*time.Second }

// A clock that is set between a master that writes and the one that reads changes
// neither what was left of a drain nor how old anything is. Each document that has
// times is one, and none of them is forgotten.
func TestTimesSurviveAClockThatIsSet(t *testing.T) {
	const (
		age, left = 40 * time.Second, 20 * time.Second
		passed    = 5 * time.Second // from one process to the other
	)
	real := func() (old, due time.Time) { now := time.Now(); return now.Add(-age), now.Add(left) }
	old, due := real()
	gens := func() []generationRecord {
		return []generationRecord{{
			Number: 1, Born: old, Served: old, Drained: old,
			Workers: []childRecord{{Born: old, Ready: old, DrainBy: due, Unacked: []heldRecord{{At: old}}}},
		}}
	}
	docs := map[string]func() (write, read dated){
		"record": func() (dated, dated) { return &poolRecord{Generations: gens()}, &poolRecord{} },
		"handover": func() (dated, dated) {
			return &handover{Generations: gens(), Queue: []heldRecord{{At: old}}}, &handover{}
		},
	}
	jumps := map[string]struct{ before, between time.Duration }{
		"none":                {},
		"a year back":         {between: -365 * 24 * time.Hour},
		"a year forward":      {between: 365 * 24 * time.Hour},
		"an hour, before":     {before: time.Hour},
		"back before it":      {before: -50 * 365 * 24 * time.Hour},
		"there and back":      {before: time.Hour, between: -time.Hour},
		"a second backwards":  {between: -10 * time.Second},
		"to before the epoch": {before: -60 * 365 * 24 * time.Hour, between: time.Hour},
	}
	for name, doc := range docs {
		for what, jump := range jumps {
			w, r := doc()
			m := machine{ran: 1000 * time.Hour, wall: time.Now().Add(jump.before)}
			at := m.clocks().write(w)
			b, err := json.Marshal(w)
			if err == nil {
				err = json.Unmarshal(b, r)
			}
			if err != nil {
				t.Fatal(err)
			}
			m.ran += passed
			m.wall = m.wall.Add(passed + jump.between)
			m.clocks().read(r, at)
			n := 0
			r.times(func(tm *time.Time) {
				n++
				have := m.wall.Sub(*tm)
				if !near(have, age+passed) && !near(have, passed-left) {
					t.Errorf("%s, %s: time %d is %v old", name, what, n, have)
				}
			})
			if want := map[string]int{"record": 7, "handover": 8}[name]; n != want {
				t.Errorf("%s has %d times, want %d", name, n, want)
			}
		}
	}
}

// What is read lasts, too: it has the monotonic clock of its new process.
func TestTimesThatWereReadAreMonotonic(t *testing.T) {
	r := poolRecord{Generations: []generationRecord{{Born: time.Now().Add(-time.Minute)}}}
	at := theClocks.write(&r)
	if at == nil {
		t.Fatal("no clock")
	}
	theClocks.read(&r, at)
	born := r.Generations[0].Born
	if born == born.Round(0) { // which strips that clock
		t.Error("it goes by the time of day")
	}
	if d := time.Since(born); !near(d, time.Minute) {
		t.Errorf("it is %v old", d)
	}
	if !r.Generations[0].Served.IsZero() {
		t.Error("what has not been has a time")
	}
}

// Documents of builds that know of no clocks, and of machines that have none or
// were started since, are taken as they are.
func TestTimesWithoutAReadingAreTakenAsTheyAre(t *testing.T) {
	want := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	late := machine{ran: time.Hour, wall: want.Add(time.Hour)}
	for name, c := range map[string]struct {
		m  machine
		at *reading
	}{
		"no reading":      {late, nil},
		"no clock":        {machine{err: errors.New("none"), wall: late.wall}, &reading{Wall: want, Ran: time.Minute}},
		"another machine": {late, &reading{Wall: want, Ran: 2 * time.Hour}},
	} {
		r := poolRecord{Generations: []generationRecord{{Born: want}}}
		c.m.clocks().read(&r, c.at)
		if have := r.Generations[0].Born; !have.Equal(want) {
			t.Errorf("%s: %v", name, have)
		}
	}
	if at := (machine{err: errors.New("none")}).clocks().write(&poolRecord{}); at != nil {
		t.Errorf("a reading without a clock: %+v", at)
	}
}

// The whole way of a record: written, kept, and read by one that has set its clock.
func TestRecordOutlivesAClockThatIsSet(t *testing.T) {
	r := poolRecord{Protocol: protocol, PID: 1, Generations: []generationRecord{{Number: 1, Born: time.Now().Add(-time.Minute)}}}
	data := r.encode()
	defer func(c clocks) { theClocks = c }(theClocks)
	set := time.Now().Add(-1000 * time.Hour).Round(0)
	theClocks.wall = func() time.Time { return set }
	o, err := ReadRecord(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if d := set.Sub(o.record.Generations[0].Born); !near(d, time.Minute) {
		t.Errorf("%v old", d)
	}
	in, err := ParseHandover(handover{Protocol: protocol, Queue: []heldRecord{}}.encode(), nil)
	if err != nil || in.state.Clocks == nil {
		t.Errorf("handover: %+v, %v", in, err)
	}
}
