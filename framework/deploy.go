package framework

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// phase is what the master is busy with. At any time it is busy with one thing.
type phase int

const (
	starting phase = iota
	serving
	reloading
	upgrading
	stopping
)

var phases = [...]string{control.StateStarting, control.StateServing, control.StateReloading, control.StateUpgrading, control.StateStopping}

func (p phase) String() string { return phases[p] }

// want is what somebody asks of the master: a signal or the control socket.
type want int

const (
	wantReload want = iota
	wantUpgrade
	wantScale
	wantStop
	wantStopNow
	wantRollback
	wantWeight
)

var wants = [...]string{
	control.ActionReload, control.ActionUpgrade, control.ActionScale, control.ActionStop, control.ActionStop, control.ActionRollback,
	control.ActionWeight,
}

func (w want) String() string { return wants[w] }

// passable says whether the next master can be told by a signal, for which
// nobody gets an answer: a stop, or what came as a signal.
func (r request) passable() bool {
	return r.want == wantStop || r.want == wantStopNow || r.signal && r.want != wantScale && r.want != wantWeight
}

// action is what is done about it.
type action int

const (
	begin    action = iota // now
	remember               // once what goes on is done; many wishes become one
	apply                  // at once, beside what goes on
	abort                  // give up what goes on, then begin
	hasten                 // stop is going on: shorten it
	refuse
)

// arbitration is the whole of who waits for whom.
var arbitration = map[phase][7]action{
	//          reload    upgrade   scale  stop    stop now  rollback  weight
	starting:  {remember, remember, refuse, abort, abort, refuse, refuse},
	serving:   {begin, begin, apply, begin, begin, begin, apply},
	reloading: {remember, remember, apply, abort, abort, remember, apply},
	upgrading: {remember, remember, apply, abort, abort, remember, apply},
	stopping:  {refuse, refuse, refuse, hasten, hasten, refuse, refuse},
}

// request is one wish. answer is called once, with the verdict.
type request struct {
	want    want
	asked   time.Time
	from    int // the generation that is to be rolled back; 0: any
	scale   control.ScaleRequest
	weights map[int]int // by slot
	signal  bool        // nobody waits for the answer
	answer  func(control.Verdict)
}

// jobs are what the arbiter can start. Each runs until it is decided; ctx is
// cancelled to give it up.
type jobs interface {
	start(ctx context.Context) control.Verdict
	reload(ctx context.Context) control.Verdict // with ActionUpgrade: that is needed instead
	upgrade(ctx context.Context) control.Verdict
	rollback(ctx context.Context, from int) control.Verdict
	scale(control.ScaleRequest) control.Verdict
	weigh(map[int]int) control.Verdict
	stop(now bool, asked time.Time) control.Verdict
	hasten()     // the stop that is to come
	passOn(want) // to the new master, after an upgrade
}

// arbiter takes one wish after the other and decides by the table. Its state
// belongs to one goroutine, run.
type arbiter struct {
	jobs     jobs
	requests chan request
	ended    chan struct{}
	seen     chan chan phase

	phase  phase
	cancel context.CancelCauseFunc
	result chan control.Verdict
	asked  []request          // whom the result answers
	later  map[want][]request // remembered: reload, upgrade, rollback
	end    *request           // a stop that waits for what it aborted
	handed bool               // there is a new master; read by others once ended is closed
}

func newArbiter(j jobs) *arbiter {
	return &arbiter{
		jobs: j, requests: make(chan request), ended: make(chan struct{}), seen: make(chan chan phase),
		later: map[want][]request{},
	}
}

// ask hands a request over. It is answered even when the arbiter has ended.
func (a *arbiter) ask(r request) {
	r.asked = time.Now()
	select {
	case a.requests <- r:
	case <-a.ended:
		v := control.Verdict{Action: r.want.String(), Reason: "the service has stopped"}
		switch {
		case a.handed && !r.passable():
			v.Reason, v.Elsewhere = newMaster, true
		case a.handed:
			a.jobs.passOn(r.want)
			v.OK, v.Reason = true, passedOn
		}
		r.answer(v)
	}
}

// do asks and waits for the verdict.
func (a *arbiter) do(w want, s control.ScaleRequest) control.Verdict {
	return a.await(request{want: w, scale: s})
}

func (a *arbiter) await(r request) control.Verdict {
	c := make(chan control.Verdict, 1)
	r.answer = func(v control.Verdict) { c <- v }
	a.ask(r)
	return <-c
}

// state returns the phase.
func (a *arbiter) state() phase {
	c := make(chan phase, 1)
	select {
	case a.seen <- c:
		return <-c
	case <-a.ended:
		return stopping
	}
}

// run starts the first generation, then decides until the service has stopped,
// failed to start, or was handed over; it returns the first verdict that ended
// it. quit makes it give up everything.
func (a *arbiter) run(quit <-chan struct{}) control.Verdict {
	defer close(a.ended)
	a.launch(starting, nil, a.jobs.start)
	for {
		select {
		case c := <-a.seen:
			c <- a.phase
		case r := <-a.requests:
			a.decide(r)
		case v := <-a.result:
			if final := a.settle(v); final {
				return v
			}
		case <-quit:
			if a.cancel != nil {
				// Its end is waited for: it uses what is released after this.
				a.cancel(errQuit)
				a.answer(<-a.result)
			}
			a.refuseAll("the service has stopped")
			return control.Verdict{}
		}
	}
}

func (a *arbiter) decide(r request) {
	switch arbitration[a.phase][r.want] {
	case begin:
		switch r.want {
		case wantReload:
			a.launch(reloading, []request{r}, a.jobs.reload)
		case wantUpgrade:
			a.launch(upgrading, []request{r}, a.jobs.upgrade)
		case wantRollback:
			a.rollback([]request{r})
		default:
			a.stop(r)
		}
	case remember:
		a.later[r.want] = append(a.later[r.want], r)
	case apply:
		if r.want == wantWeight {
			r.answer(a.jobs.weigh(r.weights))
		} else {
			r.answer(a.jobs.scale(r.scale))
		}
	case abort:
		if a.end != nil { // the second one
			a.end.answer(control.Verdict{OK: true, Action: control.ActionStop, Coalesced: true})
			r.want, r.asked = wantStopNow, a.end.asked
			a.jobs.hasten()
		}
		a.end = &r
		a.cancel(errStopping)
	case hasten:
		r.answer(a.jobs.stop(true, r.asked))
	case refuse:
		r.answer(control.Verdict{Action: r.want.String(), Reason: "the service is " + a.phase.String()})
	}
}

func (a *arbiter) launch(p phase, asked []request, job func(context.Context) control.Verdict) {
	ctx, cancel := context.WithCancelCause(context.Background())
	result := make(chan control.Verdict, 1)
	a.phase, a.asked, a.cancel, a.result = p, asked, cancel, result
	began := time.Now()
	go func() {
		v := job(ctx)
		cancel(nil)
		v.TookMS = time.Since(began).Milliseconds()
		result <- v
	}()
}

// rollback counts as a reload, of another release. Somebody who means whatever
// serves is obeyed before the pool, which means a generation that fails.
func (a *arbiter) rollback(asked []request) {
	from := asked[0].from
	for _, r := range asked {
		from = min(from, r.from)
	}
	a.launch(reloading, asked, func(ctx context.Context) control.Verdict { return a.jobs.rollback(ctx, from) })
}

func (a *arbiter) stop(r request) {
	a.phase = stopping
	r.answer(a.jobs.stop(r.want == wantStopNow, r.asked))
	a.refuseAll("the service stops")
}

// settle takes the verdict of what went on and turns to what waits. It says
// whether this was the end.
func (a *arbiter) settle(v control.Verdict) (final bool) {
	was := a.phase
	if was == reloading && v.Action == control.ActionUpgrade && a.end == nil {
		a.launch(upgrading, a.asked, a.jobs.upgrade)
		return false
	}
	a.answer(v)
	switch {
	case was == upgrading && v.OK:
		a.passOn()
		return true
	case was == starting && !v.OK:
		// Also when that is because it was told to stop: nothing serves here,
		// and what a candidate has inherited is not its to close.
		a.refuseAll("the service did not start")
		return true
	case a.end != nil:
		r := *a.end
		a.end = nil
		a.stop(r)
		return false
	}
	a.phase = serving
	// An upgrade brings new workers too, so it answers both.
	if up := a.later[wantUpgrade]; len(up) > 0 {
		all := append(up, a.later[wantReload]...)
		delete(a.later, wantUpgrade)
		delete(a.later, wantReload)
		a.launch(upgrading, all, a.jobs.upgrade)
	} else if re := a.later[wantReload]; len(re) > 0 {
		delete(a.later, wantReload)
		a.launch(reloading, re, a.jobs.reload)
	} else if back := a.later[wantRollback]; len(back) > 0 {
		delete(a.later, wantRollback)
		a.rollback(back)
	}
	return false
}

// answer tells what came of it to those who asked for what goes on.
func (a *arbiter) answer(v control.Verdict) {
	a.cancel, a.result = nil, nil
	for _, r := range a.asked {
		v := v
		v.Action = r.want.String()
		v.Coalesced = len(a.asked) > 1
		r.answer(v)
	}
	a.asked = nil
}

// passOn gives the new master what was asked for during its start. It goes by
// the file that was on disk when it started: who asked later means a later one.
func (a *arbiter) passOn() {
	a.handed = true
	if a.end != nil {
		a.jobs.passOn(a.end.want)
		a.end.answer(control.Verdict{OK: true, Action: control.ActionStop, Reason: passedOn})
		a.end = nil
		a.refuseAll("the service stops")
		return
	}
	switch { // an upgrade answers both
	case slices.ContainsFunc(a.later[wantUpgrade], request.passable):
		a.jobs.passOn(wantUpgrade)
	case slices.ContainsFunc(a.later[wantReload], request.passable):
		a.jobs.passOn(wantReload)
	}
	for w, rs := range a.later {
		for _, r := range rs {
			v := control.Verdict{OK: true, Action: w.String(), Reason: passedOn}
			if !r.passable() {
				v.OK, v.Reason, v.Elsewhere = false, newMaster, true
			}
			r.answer(v)
		}
	}
	clear(a.later)
}

func (a *arbiter) refuseAll(reason string) {
	for _, rs := range a.later {
		for _, r := range rs {
			r.answer(control.Verdict{Action: r.want.String(), Reason: reason})
		}
	}
	clear(a.later)
	for _, r := range a.asked {
		r.answer(control.Verdict{Action: r.want.String(), Reason: reason})
	}
	a.asked = nil
	if a.end != nil {
		a.end.answer(control.Verdict{OK: true, Action: control.ActionStop, Reason: reason})
		a.end = nil
	}
}

const (
	passedOn  = "passed on to the new master"
	newMaster = "there is a new master"
)

var (
	errQuit     = fmt.Errorf("the master ends")
	errStopping = fmt.Errorf("the service is told to stop")
)
