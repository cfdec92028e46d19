package upgrade

import (
	"fmt"
	"testing"
	"time"
)

// courseIn is a course that has come to a phase.
func courseIn(p initPhase, now time.Time) *course {
	c := &course{started: now}
	switch p {
	case initRunning:
		c.on(sawHello, now)
	case initPassing:
		c.on(sawHello, now)
		c.on(sawReplaced, now)
	case initOrphaned:
		c.on(sawCrash, now)
	case initPausing:
		c.on(sawCrash, now)
		c.on(sawExtinct, now)
	}
	return c
}

// TestEveryCellOfTheInitTable lets everything happen in every phase.
func TestEveryCellOfTheInitTable(t *testing.T) {
	type want struct {
		phase initPhase
		step  step
	}
	var (
		running  = want{initRunning, step{}}
		passing  = want{initPassing, step{}}
		orphaned = want{initOrphaned, step{wake, lineTime}}
		pausing  = want{initPausing, step{wake, firstBackoff}}
		starts   = want{initStarting, step{do: start}}
	)
	still := func(p initPhase, s step) want { return want{p, s} }
	// In the order of the events: hello, replaced, crash, exit, extinct, time, stop.
	table := map[initPhase][7]want{
		initStarting: {running, still(initStarting, step{}), orphaned, still(initStarting, step{do: end}),
			still(initStarting, step{}), still(initStarting, step{wake, helloTime}), still(initStarting, step{wake, helloTime})},
		initRunning: {running, passing, orphaned, still(initRunning, step{do: end}), running, running, running},
		initPassing: {running, passing, passing, passing, pausing, passing, passing},
		initOrphaned: {running, still(initOrphaned, step{}), still(initOrphaned, step{}), still(initOrphaned, step{}),
			pausing, starts, still(initOrphaned, step{})},
		initPausing: {still(initPausing, step{}), still(initPausing, step{}), still(initPausing, step{}), still(initPausing, step{}),
			still(initPausing, step{}), starts, still(initPausing, step{do: end})},
	}
	now := time.Now()
	for p, row := range table {
		for e, w := range row {
			t.Run(fmt.Sprintf("%s, %s", p, initEvent(e)), func(t *testing.T) {
				c := courseIn(p, now)
				if c.phase != p {
					t.Fatalf("the course is %s", c.phase)
				}
				s := c.on(initEvent(e), now)
				if have := (want{c.phase, s}); have != w {
					t.Errorf("it is %s and does %+v, want %s and %+v", have.phase, have.step, w.phase, w.step)
				}
			})
		}
	}
}

// A container that was to stop does not start a master again, however the one
// that it had has ended.
func TestAStopIsNeverARestart(t *testing.T) {
	now := time.Now()
	for _, p := range []initPhase{initStarting, initRunning, initPassing, initOrphaned} {
		for _, first := range []initEvent{sawCrash, sawExtinct} {
			t.Run(fmt.Sprintf("%s, %s first", p, first), func(t *testing.T) {
				c := courseIn(p, now)
				c.on(sawStop, now)
				s := c.on(first, now)
				if s.do != end {
					s = c.on(sawCrash+sawExtinct-first, now)
				}
				if s.do != end {
					t.Errorf("it is %s and does %+v", c.phase, s)
				}
			})
		}
	}
	t.Run("who is left of its line does not end", func(t *testing.T) {
		c := courseIn(initOrphaned, now)
		c.on(sawStop, now)
		if s := c.on(sawTime, now); s.do != end {
			t.Errorf("it does %+v", s)
		}
	})
}

func TestAMasterThatDoesNotHearAStopGetsASignal(t *testing.T) {
	now := time.Now()
	for _, second := range []initEvent{sawStop, sawTime} {
		c := courseIn(initStarting, now)
		c.on(sawStop, now)
		if s := c.on(second, now); s.do != terminate {
			t.Errorf("%s after stop: %+v", second, s)
		}
	}
	c := courseIn(initStarting, now)
	c.on(sawStop, now)
	c.on(sawHello, now)
	if s := c.on(sawStop, now); s != (step{}) {
		t.Errorf("a second stop of one that hears: %+v", s)
	}
}

// crash lets a master live for so long, and returns how long init waits.
func (c *course) crash(lives time.Duration, now *time.Time) step {
	*now = now.Add(lives)
	c.on(sawCrash, *now)
	s := c.on(sawExtinct, *now)
	if s.do == wake {
		*now = now.Add(s.in)
		c.on(sawTime, *now)
	}
	return s
}

func TestRestartsGetSlowerAndAreForgiven(t *testing.T) {
	now := time.Now()
	c := &course{served: true, started: now}
	last := time.Duration(0)
	for n := range 12 {
		s := c.crash(0, &now)
		if s.do != wake || s.in < last || n == 0 && s.in != firstBackoff || n > 2 && n < 6 && s.in < 3*last/2 {
			t.Fatalf("crash %d: %+v after %v", n+1, s, last)
		}
		last = s.in
	}
	if last < maxBackoff/2 || last > maxBackoff {
		t.Errorf("after 12 crashes: %v, want nearly %v", last, maxBackoff)
	}
	if s := c.crash(10*time.Minute, &now); s.in != firstBackoff {
		t.Errorf("after ten minutes: %v, want %v", s.in, firstBackoff)
	}
	for range 100 { // one a minute is no reason to wait
		if s := c.crash(time.Minute, &now); s.in != firstBackoff {
			t.Fatalf("a crash a minute: %v, want %v", s.in, firstBackoff)
		}
	}
}

func TestTheBackoffBeginsWithTheCrash(t *testing.T) {
	now := time.Now()
	c := courseIn(initOrphaned, now)
	if s := c.on(sawExtinct, now.Add(150*time.Millisecond)); s.in != 50*time.Millisecond {
		t.Errorf("%+v", s)
	}
	c = courseIn(initOrphaned, now)
	if s := c.on(sawExtinct, now.Add(time.Second)); s != (step{wake, 0}) {
		t.Errorf("%+v", s)
	}
}

func TestWhatHasNeverServedIsGivenUp(t *testing.T) {
	now := time.Now()
	c := &course{started: now}
	for n := range firstTries - 1 {
		if s := c.crash(0, &now); s.do != wake {
			t.Fatalf("crash %d: %+v", n+1, s)
		}
	}
	if s := c.crash(0, &now); s.do != end {
		t.Errorf("crash %d: %+v", firstTries, s)
	}
}
