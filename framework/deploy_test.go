package framework

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// TestEveryCellOfTheTable asks for everything in every phase.
func TestEveryCellOfTheTable(t *testing.T) {
	table := [...][7]action{
		starting:  {remember, remember, refuse, abort, abort, refuse, refuse},
		serving:   {begin, begin, apply, begin, begin, begin, apply},
		reloading: {remember, remember, apply, abort, abort, remember, apply},
		upgrading: {remember, remember, apply, abort, abort, remember, apply},
		stopping:  {refuse, refuse, refuse, hasten, hasten, refuse, refuse},
	}
	jobOf := map[want]string{wantReload: "reload", wantUpgrade: "upgrade", wantRollback: "rollback"}
	stopOf := map[want]string{wantStop: "stop", wantStopNow: "stop now"}
	for p, row := range table {
		for w, a := range row {
			p, w := phase(p), want(w)
			name := fmt.Sprintf("%s, %s", p, w)
			if w == wantStopNow {
				name += " now"
			}
			t.Run(name, func(t *testing.T) {
				c := newCourt(t)
				goesOn, first := c.enter(p)
				r := c.asks(w)
				switch a {
				case begin:
					if stop, ok := stopOf[w]; ok {
						c.did(stop)
						c.is(stopping)
					} else {
						c.next(jobOf[w]).end(control.Verdict{OK: true, Generation: 2})
					}
					if v := c.verdict(r); !v.OK || v.Action != w.String() || v.Coalesced {
						t.Errorf("verdict %+v", v)
					}
				case remember:
					c.open(r)
					c.nothing()
					if goesOn.ctx.Err() != nil {
						t.Error("what goes on was given up")
					}
					// A refused upgrade, for one that succeeds ends this master.
					goesOn.end(control.Verdict{OK: p != upgrading})
					if first != nil {
						c.verdict(first)
					}
					c.open(r)
					c.next(jobOf[w]).end(control.Verdict{OK: true, Generation: 9})
					if v := c.verdict(r); !v.OK || v.Generation != 9 || v.Action != w.String() {
						t.Errorf("verdict %+v", v)
					}
				case apply:
					c.did(w.String())
					if v := c.verdict(r); !v.OK {
						t.Errorf("verdict %+v", v)
					}
					c.is(p)
					if goesOn != nil && goesOn.ctx.Err() != nil {
						t.Error("what goes on was given up")
					}
				case abort:
					await(t, goesOn.ctx.Done(), "giving up")
					if cause := context.Cause(goesOn.ctx); !errors.Is(cause, errStopping) {
						t.Errorf("given up because %v", cause)
					}
					if p == starting { // nothing serves that would have to be stopped
						<-c.ended
						c.nothing()
					} else {
						c.did(stopOf[w])
					}
					if v := c.verdict(r); !v.OK {
						t.Errorf("verdict %+v", v)
					}
					if first != nil {
						if v := c.verdict(first); v.OK {
							t.Errorf("what was given up has verdict %+v", v)
						}
					}
					c.is(stopping)
				case hasten:
					c.did("stop now")
					if v := c.verdict(r); !v.OK {
						t.Errorf("verdict %+v", v)
					}
				case refuse:
					want := control.Verdict{Action: w.String(), Reason: "the service is " + p.String()}
					if v := c.verdict(r); v != want {
						t.Errorf("verdict %+v, want %+v", v, want)
					}
					c.nothing()
				}
			})
		}
	}
}

func TestStormOfReloadsIsOneMore(t *testing.T) {
	c := newCourt(t)
	j, first := c.enter(reloading)
	var storm []reply
	for range 100 {
		storm = append(storm, c.asks(wantReload))
	}
	j.end(control.Verdict{OK: true, Generation: 2})
	if v := c.verdict(first); v.Generation != 2 || v.Coalesced {
		t.Errorf("first %+v", v)
	}
	c.next("reload").end(control.Verdict{OK: true, Generation: 3})
	for _, r := range storm {
		if v := c.verdict(r); !v.OK || v.Generation != 3 || !v.Coalesced {
			t.Fatalf("storm %+v", v)
		}
	}
	c.is(serving)
	c.nothing()
}

func TestUpgradeAnswersReloadsToo(t *testing.T) {
	for _, order := range [][]want{{wantReload, wantUpgrade}, {wantUpgrade, wantReload}} {
		c := newCourt(t)
		j, _ := c.enter(reloading)
		var asked []reply
		for _, w := range order {
			asked = append(asked, c.asks(w))
		}
		j.end(control.Verdict{OK: true})
		c.next("upgrade").end(control.Verdict{Reason: "bad", Generation: 7})
		for i, r := range asked {
			if v := c.verdict(r); v.OK || v.Generation != 7 || v.Reason != "bad" || v.Action != order[i].String() || !v.Coalesced {
				t.Errorf("%s: %+v", order[i], v)
			}
		}
		c.is(serving)
		c.nothing()
	}
}

// TestReloadBecomesAnUpgrade: the phase says so, and its success ends this
// master.
func TestReloadBecomesAnUpgrade(t *testing.T) {
	needs := control.Verdict{Action: control.ActionUpgrade, Reason: "it changes Listeners"}
	c := newCourt(t)
	j, first := c.enter(reloading)
	later := c.asks(wantReload)
	j.end(needs)
	up := c.next("upgrade")
	c.is(upgrading)
	c.open(first)
	up.end(control.Verdict{OK: true, Generation: 2})
	if v := c.verdict(first); !v.OK || v.Generation != 2 || v.Action != control.ActionReload {
		t.Errorf("verdict %+v", v)
	}
	c.did("pass on reload")
	c.verdict(later)
	<-c.ended

	// Not when the service is told to stop at that moment.
	c = newDeafCourt(t)
	j, first = c.enter(reloading)
	stop := c.asks(wantStop)
	await(t, j.ctx.Done(), "giving up")
	j.end(needs)
	c.did("stop")
	if v := c.verdict(first); v.OK {
		t.Errorf("verdict %+v", v)
	}
	c.verdict(stop)
	c.nothing()
}

func TestUpgradePassesLaterWishesOn(t *testing.T) {
	tests := []struct {
		later []want
		does  []string
	}{
		{[]want{wantReload, wantReload}, []string{"pass on reload"}},
		{[]want{wantUpgrade}, []string{"pass on upgrade"}},
		{[]want{wantReload, wantUpgrade}, []string{"pass on upgrade"}},
	}
	for _, tt := range tests {
		c := newCourt(t)
		j, first := c.enter(upgrading)
		var later []reply
		for _, w := range tt.later {
			later = append(later, c.asks(w))
		}
		j.end(control.Verdict{OK: true, Generation: 2})
		if v := c.verdict(first); !v.OK || v.Generation != 2 {
			t.Errorf("first %+v", v)
		}
		for _, d := range tt.does {
			c.did(d)
		}
		for _, r := range later {
			if v := c.verdict(r); !v.OK || v.Reason != "passed on to the new master" {
				t.Errorf("later %+v", v)
			}
		}
		if v := <-c.ended; !v.OK {
			t.Errorf("it ended with %+v", v)
		}
		if len(c.done) > 0 {
			t.Errorf("did %q too", <-c.done)
		}
		// Who still asked the old master asked for the service.
		if v := c.verdict(c.asks(wantStop)); !v.OK || v.Reason != "passed on to the new master" {
			t.Errorf("stop after the end %+v", v)
		}
		c.did("pass on stop")
		for _, w := range []want{wantScale, wantWeight} {
			if v := c.verdict(c.asks(w)); v.OK || !v.Elsewhere || v.Reason != "there is a new master" {
				t.Errorf("%s after the end %+v", w, v)
			}
		}
	}
}

// Who waits for a verdict has it from the new master, whom he asks himself.
func TestVerdictsAreTheNewMasters(t *testing.T) {
	for _, w := range []want{wantReload, wantUpgrade, wantRollback} {
		c := newCourt(t)
		j, first := c.enter(upgrading)
		later := make(reply, 2)
		ask := func() { c.ask(request{want: w, answer: func(v control.Verdict) { later <- v }}) }
		ask()
		j.end(control.Verdict{OK: true, Generation: 2})
		c.verdict(first)
		if v := c.verdict(later); v.OK || !v.Elsewhere {
			t.Errorf("%s during the upgrade: %+v", w, v)
		}
		<-c.ended
		if ask(); len(c.done) > 0 {
			t.Errorf("%s: did %q", w, <-c.done)
		}
		if v := c.verdict(later); v.OK || !v.Elsewhere {
			t.Errorf("%s after the upgrade: %+v", w, v)
		}
	}
}

// TestStopThatAnUpgradeOutran: a TERM that came when the new master could not be
// taken back goes to it; what was to be deployed after that is not.
func TestStopThatAnUpgradeOutran(t *testing.T) {
	c := newDeafCourt(t)
	j, first := c.enter(upgrading)
	later, stop := c.asks(wantReload), c.asks(wantStop)
	await(t, j.ctx.Done(), "giving up")
	j.end(control.Verdict{OK: true})
	c.did("pass on stop")
	if v := c.verdict(stop); !v.OK {
		t.Errorf("stop %+v", v)
	}
	if v := c.verdict(later); v.OK {
		t.Errorf("later %+v", v)
	}
	c.verdict(first)
	if <-c.ended; len(c.done) > 0 {
		t.Errorf("did %q too", <-c.done)
	}
}

func TestSecondStopIsNow(t *testing.T) {
	for _, p := range []phase{reloading, upgrading} {
		c := newDeafCourt(t)
		j, _ := c.enter(p)
		one, two := c.asks(wantStop), c.asks(wantStop)
		if v := c.verdict(one); !v.OK || !v.Coalesced {
			t.Errorf("first stop %+v", v)
		}
		c.open(two)
		j.end(control.Verdict{Reason: "given up"})
		c.did("stop now")
		if v := c.verdict(two); !v.OK {
			t.Errorf("second stop %+v", v)
		}
		c.is(stopping)
	}
	c := newCourt(t)
	c.enter(stopping)
	c.asks(wantStop)
	c.did("stop now")
}

func TestStopRefusesWhatWaits(t *testing.T) {
	c := newCourt(t)
	_, first := c.enter(reloading)
	later := c.asks(wantUpgrade)
	stop := c.asks(wantStop)
	c.did("stop")
	for _, r := range []reply{first, later} {
		if v := c.verdict(r); v.OK {
			t.Errorf("%+v", v)
		}
	}
	c.verdict(stop)
	c.is(stopping)
	c.nothing()
}

func TestFailedFirstStartIsFinal(t *testing.T) {
	c := newCourt(t)
	j, _ := c.enter(starting)
	later := c.asks(wantReload)
	j.end(control.Verdict{Reason: "bad", Generation: 1})
	if v := <-c.ended; v.OK || v.Reason != "bad" {
		t.Errorf("it ended with %+v", v)
	}
	if v := c.verdict(later); v.OK || v.Reason != "the service did not start" {
		t.Errorf("later %+v", v)
	}
}

// TestQuitWaitsForWhatGoesOn: the master releases what a job uses.
func TestQuitWaitsForWhatGoesOn(t *testing.T) {
	c := newDeafCourt(t)
	j, first := c.enter(reloading)
	later := c.asks(wantReload)
	close(c.quit)
	await(t, j.ctx.Done(), "giving up")
	select {
	case <-c.arbiter.ended:
		t.Fatal("the arbiter ended before its job")
	default:
	}
	j.end(control.Verdict{Reason: "given up"})
	await(t, c.arbiter.ended, "the end")
	for _, r := range []reply{first, later} {
		if v := c.verdict(r); v.OK {
			t.Errorf("%+v", v)
		}
	}
}

// TestEveryRequestIsAnsweredOnce: whatever is asked for in whatever order, from
// several sides, while jobs succeed and fail.
func TestEveryRequestIsAnsweredOnce(t *testing.T) {
	for seed := range int64(150) {
		rng := rand.New(rand.NewSource(seed))
		s := newScript()
		s.stubborn = seed%2 == 0
		a := newArbiter(s)
		quit, ended := make(chan struct{}), make(chan control.Verdict, 1)
		go func() { ended <- a.run(quit) }()

		fails := rng.Intn(4) + 2
		upgrades := rng.Intn(3) == 0 // may succeed
		outcomes := rand.New(rand.NewSource(seed + 1000))
		judged := make(chan struct{})
		var history []string
		go func() {
			defer close(judged)
			for {
				select {
				case <-a.ended:
					return
				case j := <-s.began:
					history = append(history, j.what)
					ok := outcomes.Intn(fails) > 0 && (j.what != "upgrade" || upgrades)
					select {
					case j.verdict <- control.Verdict{OK: ok}:
					case <-j.ctx.Done():
						select {
						case j.verdict <- control.Verdict{Reason: "given up"}:
						case <-a.ended: // it saw its context itself
							return
						case j := <-s.began:
							j.verdict <- control.Verdict{}
						case <-time.After(10 * time.Millisecond):
						}
					}
				}
			}
		}()

		const askers, each = 3, 25
		answers := make([]atomic.Int32, askers*each)
		var all sync.WaitGroup
		for i := range askers {
			wants := make([]want, each)
			for k := range wants {
				wants[k] = want(rng.Intn(3))
				if rng.Intn(40) == 0 {
					wants[k] = wantStop + want(rng.Intn(2))
				}
			}
			all.Go(func() {
				for k, w := range wants {
					a.ask(request{want: w, answer: func(control.Verdict) { answers[i*each+k].Add(1) }})
					if k%5 == 0 {
						a.state()
					}
				}
			})
		}
		all.Wait()
		close(quit)
		select {
		case <-a.ended:
		case <-time.After(patience):
			t.Fatalf("seed %d: it does not end", seed)
		}
		<-judged
		for i := range answers {
			if n := answers[i].Load(); n != 1 {
				t.Errorf("seed %d: request %d was answered %d times", seed, i, n)
			}
		}
		if s.overlap.Load() {
			t.Errorf("seed %d: two jobs ran at the same time", seed)
		}
		close(s.done)
		var did []string
		for d := range s.done {
			did = append(did, d)
		}
		// The first stop may be of either kind, all later ones hasten.
		stops := 0
		for _, d := range did {
			if d == "stop" || d == "stop now" {
				if stops++; stops > 1 && d == "stop" {
					t.Errorf("seed %d: a later stop was as slow as the first: %q", seed, did)
				}
			}
		}
		if len(history) > 0 && (history[0] != "start" || slices.Contains(history[1:], "start")) {
			t.Errorf("seed %d: %q, want one start first", seed, history)
		}
	}
}
