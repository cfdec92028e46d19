package framework

import (
	"sync"
	"time"
)

// turns tells connections that the process drains, one after the other, so that
// clients that connect anew do not arrive as one herd.
//
// It knows a limited number of channels and not one for each connection that
// there ever was: goroutines may wait for a channel longer than the connection
// lives, and have to be told all the same.
type turns struct {
	spread time.Duration // the option

	mu    sync.Mutex
	all   []*turn
	free  []*turn // those with no connection
	next  int     // in all: whom the next connection joins when none is free
	begun bool
	end   time.Time // when the last is told
	queue []*turn   // that are still to be told
	timer *time.Timer
}

// turn is one step of the telling.
type turn struct {
	told    chan struct{}
	conns   int // that are alive
	already bool
}

const (
	maxTurns = 1000
	maxStep  = 10 * time.Millisecond // so that few are told at once, practically
	minStep  = time.Millisecond
)

// of returns the channel that is closed when it is c's turn; nil if c is over
// and has none.
func (t *turns) of(c *connState) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := c.turn.Load()
	if j == nil && !c.left {
		j = t.join()
		j.conns++
		c.turn.Store(j)
	}
	if j == nil {
		return nil
	}
	return j.told
}

// join returns the turn for another connection. mu is held.
func (t *turns) join() *turn {
	if t.begun {
		// At the end of the queue; at once where there is none any more.
		late := &turn{told: make(chan struct{})}
		switch n := len(t.queue); {
		case n == 0:
			late.tell()
		case n < maxTurns:
			t.queue = append(t.queue, late)
		default:
			return t.queue[n-1]
		}
		return late
	}
	if n := len(t.free); n > 0 {
		j := t.free[n-1]
		t.free = t.free[:n-1]
		return j
	}
	if len(t.all) < maxTurns {
		j := &turn{told: make(chan struct{})}
		t.all = append(t.all, j)
		return j
	}
	t.next = (t.next + 1) % len(t.all)
	return t.all[t.next]
}

// rest says that c has no request: what has asked so far does not wait for the
// client's sake, and c asks again with its next one.
func (t *turns) rest(c *connState) {
	if c.turn.Load() == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if j := c.turn.Load(); j != nil && !j.already && !c.left {
		t.part(j)
		c.turn.Store(nil)
	}
}

// leave says that c is over, and returns whether it had been told.
func (t *turns) leave(c *connState) (told bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := c.turn.Load()
	if j != nil && !c.left {
		t.part(j)
	}
	c.left = true
	return j != nil && j.already
}

// part ends the place of a connection in j. mu is held.
func (t *turns) part(j *turn) {
	if j.conns--; j.conns == 0 && !t.begun {
		t.free = append(t.free, j)
	}
}

// begin tells all within the given time, or sooner if it has begun.
func (t *turns) begin(within time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := time.Now().Add(within)
	if !t.begun {
		t.begun = true
		t.end = end
		t.queue, t.all, t.free = t.all, nil, nil
		t.timer = time.AfterFunc(maxDuration, t.step)
	}
	if end.Before(t.end) {
		t.end = end
	}
	t.tellNext()
}

func (t *turns) step() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellNext()
}

// tellNext tells whose turn it is, and sets the timer for the next. It reckons
// anew each time: connections come and go meanwhile, and timers are late. mu is
// held.
func (t *turns) tellNext() {
	t.timer.Stop()
	n, left := len(t.queue), time.Until(t.end)
	if left < minStep {
		t.tell(n, true)
		return
	}
	t.tell(max(1, int(time.Duration(n)*minStep/left)), false)
	if n = len(t.queue); n > 0 {
		t.timer.Reset(max(minStep, min(maxStep, left/time.Duration(n))))
	}
}

// tell closes the next k channels, or all. Those with no connection cost no
// time. mu is held.
func (t *turns) tell(k int, all bool) {
	for len(t.queue) > 0 && (all || k > 0 || t.queue[0].conns == 0) {
		if t.queue[0].conns > 0 {
			k--
		}
		t.queue[0].tell()
		t.queue = t.queue[1:]
	}
}

func (j *turn) tell() {
	j.already = true
	close(j.told)
}
