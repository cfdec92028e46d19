package framework

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// askers are connections, and how many were told.
type askers struct {
	t     *testing.T
	turns *turns
	conns []*connState
	told  atomic.Int64
}

func ask(t *testing.T, ts *turns, n int) *askers {
	a := &askers{t: t, turns: ts}
	a.more(n)
	return a
}

func (a *askers) more(n int) {
	for range n {
		c := &connState{}
		a.conns = append(a.conns, c)
		told := a.turns.of(c)
		go func() {
			<-told
			a.told.Add(1)
		}()
	}
}

// after lets time pass, and returns how many have been told.
func (a *askers) after(d time.Duration) int {
	time.Sleep(d)
	synctest.Wait()
	return int(a.told.Load())
}

func (a *askers) want(d time.Duration, n int) {
	a.t.Helper()
	if got := a.after(d); got != n {
		a.t.Errorf("after %v more %d were told, want %d", d, got, n)
	}
}

func TestTurns(t *testing.T) {
	for name, f := range map[string]func(*testing.T){
		"few are told at once, nearly": func(t *testing.T) {
			a := ask(t, new(turns), 5)
			a.want(time.Hour, 0)
			a.turns.begin(5 * time.Second)
			a.want(0, 1)
			a.want(4*maxStep, 5)
		},
		"many take the whole time": func(t *testing.T) {
			a := ask(t, new(turns), 10_000)
			a.turns.begin(5 * time.Second)
			for i := range 9 {
				if n := a.after(500 * time.Millisecond); n < (i+1)*900 || n > (i+1)*1100 {
					t.Errorf("after %d tenths of the time %d were told", i+1, n)
				}
			}
			a.want(500*time.Millisecond, 10_000)
		},
		"all at once": func(t *testing.T) {
			a := ask(t, new(turns), 10_000)
			a.turns.begin(0)
			a.want(0, 10_000)
		},
		"a short time is kept to": func(t *testing.T) {
			a := ask(t, new(turns), 10_000)
			a.turns.begin(20 * time.Millisecond)
			if n := a.after(10 * time.Millisecond); n < 3000 || n > 7000 {
				t.Errorf("after half of the time %d were told", n)
			}
			a.want(10*time.Millisecond, 10_000)
		},
		"less time than thought": func(t *testing.T) {
			a := ask(t, new(turns), 1000)
			a.turns.begin(time.Hour)
			a.after(time.Second)
			a.turns.begin(10 * time.Millisecond)
			a.want(10*time.Millisecond, 1000)
			a.turns.begin(time.Hour) // changes nothing any more
			a.more(1)
			a.want(0, 1001)
		},
		"the latecomer": func(t *testing.T) {
			a := ask(t, new(turns), 10)
			a.turns.begin(5 * time.Second)
			a.want(4*maxStep, 5)
			a.more(1)
			a.want(5*maxStep, 10)
			a.want(maxStep, 11) // last
			a.more(1)
			a.want(0, 12) // nobody else waits
		},
		"nobody waits for who has left": func(t *testing.T) {
			a := ask(t, new(turns), 100)
			for _, c := range a.conns[:99] {
				if a.turns.leave(c) {
					t.Error("was told")
				}
			}
			a.turns.begin(5 * time.Second)
			a.want(0, 100) // goroutines may have stayed
			if !a.turns.leave(a.conns[99]) {
				t.Error("was not told")
			}
			if a.turns.of(a.conns[0]) == nil || a.turns.of(&connState{left: true}) != nil {
				t.Error("a connection that has left has the turn that it had")
			}
		},
		"a connection without a request does not wait": func(t *testing.T) {
			a := ask(t, new(turns), 3)
			idle, again := a.conns[1], a.conns[2]
			a.turns.rest(idle)
			a.turns.rest(again)
			if a.turns.of(again) == nil {
				t.Error("it has no turn the second time")
			}
			a.turns.begin(5 * time.Second)
			a.want(0, 2) // the idle one's goroutine costs no time
			a.want(maxStep, 3)
			a.turns.rest(again)
			a.turns.begin(time.Hour)
			select {
			case <-a.turns.of(again):
			default:
				t.Error("what was told once is not any more")
			}
		},
		"connections that come and go cost nothing": func(t *testing.T) {
			ts := new(turns)
			for range 100_000 {
				c := &connState{}
				ts.of(c)
				ts.leave(c)
				ts.leave(c)
			}
			if len(ts.all) != 1 || len(ts.free) != 1 || ts.free[0].conns != 0 {
				t.Errorf("%d turns, %d free", len(ts.all), len(ts.free))
			}
			a := ask(t, ts, 2*maxTurns)
			if len(ts.all) != maxTurns || len(ts.free) != 0 {
				t.Errorf("%d turns, %d free", len(ts.all), len(ts.free))
			}
			for _, j := range ts.all {
				if j.conns != 2 {
					t.Fatalf("a turn of %d connections", j.conns)
				}
			}
			a.turns.begin(0)
			a.want(0, 2*maxTurns)
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
}
