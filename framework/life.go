package framework

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/baton-go/baton/workers"
)

// life is the course of a process that serves, a worker or a single one:
// starting, ready, draining, cut, over. What an application is told of it
// travels in contexts.
type life struct {
	base    context.Context // the application's: ends when the last connection has
	endBase context.CancelFunc
	serve   context.Context // done when the drain begins
	endServ context.CancelFunc

	draining chan struct{} // closed when the drain begins
	graceUp  chan struct{} // closed when idle connections may be closed
	cut      chan struct{} // closed when what is left is to be cut

	ready   chan struct{} // closed when the application says so
	readyOK sync.Once

	// give hands an idle connection of a listener on to another worker. nil where
	// there is no other.
	give func(net.Listener, net.Conn, workers.Moved) workers.Reception

	tickets ticketKeys // of this process' listeners with TLS

	told bool // by a signal that it is to leave; runWorker's

	open      func() int // connections, now
	turns     turns
	tally     tally
	built     chan http.Handler // what the ready check asks, once there is one
	graceOnce sync.Once
	cutOnce   sync.Once
	atCut     int // connections that were open when cut was closed

	mu       sync.Mutex
	begun    bool
	moves    bool // idle connections go to another worker
	deadline time.Time
	grace    time.Duration // of a connection that becomes idle
	graceAt  time.Time     // of those that were idle when the drain began
	timers   []*time.Timer
	hooks    []func(context.Context) error
}

type lifeKey struct{}

// newLife is told how many connections are open, to count those that it cuts.
func newLife(open func() int) *life {
	l := &life{
		open:     open,
		draining: make(chan struct{}), graceUp: make(chan struct{}), cut: make(chan struct{}), ready: make(chan struct{}),
		built: make(chan http.Handler, 1),
	}
	base := context.WithValue(context.Background(), lifeKey{}, l)
	l.base, l.endBase = context.WithCancel(base)
	l.serve, l.endServ = context.WithCancel(l.base)
	return l
}

func lifeOf(ctx context.Context) *life {
	l, _ := ctx.Value(lifeKey{}).(*life)
	return l
}

// drain begins the drain, or shortens one that has begun.
func (l *life) drain(o workers.DrainOrder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moves = o.Move && l.give != nil // the latest order counts
	now := time.Now()
	deadline := now.Add(o.Timeout)
	if l.begun && !deadline.Before(l.deadline) {
		return
	}
	grace := min(o.Grace, o.Timeout)
	graceAt := now.Add(grace)
	if l.begun { // no longer than it was
		grace = min(grace, l.grace)
		if l.graceAt.Before(graceAt) {
			graceAt = l.graceAt
		}
	}
	l.deadline, l.grace, l.graceAt = deadline, grace, graceAt
	for _, t := range l.timers {
		t.Stop()
	}
	l.timers = []*time.Timer{
		time.AfterFunc(graceAt.Sub(now), func() { l.graceOnce.Do(func() { close(l.graceUp) }) }),
		time.AfterFunc(o.Timeout, l.cutNow),
	}
	if !l.begun {
		l.begun = true
		close(l.draining)
		l.endServ()
	}
	l.turns.begin(min(l.turns.spread, o.Timeout/2))
}

// moving says whether idle connections go to another worker.
func (l *life) moving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moves
}

// graceLeft says whether there is time left to tell idle connections to close,
// beyond what that takes.
func (l *life) graceLeft(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline.Sub(now) > l.grace+3*idleRecheck
}

// cutNow counts what it cuts before anybody can begin to close it.
func (l *life) cutNow() {
	l.cutOnce.Do(func() {
		l.atCut = l.open()
		close(l.cut)
		l.turns.begin(0)
	})
}

// wereCut is how many connections the deadline found open. What closes them
// then may be done with it before anybody has looked.
func (l *life) wereCut() int {
	select {
	case <-l.cut:
		return l.atCut
	default:
		return 0
	}
}

// idleLimit is how long a connection may have been idle, once the grace is up.
// One that had a request until then gets a grace of its own: its client was not
// told to close. It is no less than least, but for this: before the deadline all
// idle ones go, rather than be cut.
func (l *life) idleLimit(now time.Time, least time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deadline.Sub(now) < 3*idleRecheck {
		return idleRecheck
	}
	return max(l.grace, least)
}

// end cuts what there may be, where there was no drain, ends the application's
// context and runs the OnStop functions, last first.
func (l *life) end(limit time.Duration) error {
	l.mu.Lock()
	for _, t := range l.timers {
		t.Stop()
	}
	hooks := l.hooks
	l.mu.Unlock()
	l.cutNow()
	l.endServ()
	l.endBase()
	if len(hooks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var errs []error
		for i := len(hooks) - 1; i >= 0; i-- {
			errs = append(errs, hooks[i](ctx))
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("OnStop functions did not return within %v", limit)
	}
}

// Ready says that this process can take connections, for a Serve function that
// has more to do before it can than to call Accept. Without it a process is
// ready once Accept has been called on every listener. ctx is Serve's.
func Ready(ctx context.Context) {
	if l := lifeOf(ctx); l != nil {
		l.readyOK.Do(func() { close(l.ready) })
	}
}

// Draining returns a channel that is closed when this process drains: it gets
// no more connections and ends when those it has are finished, or at its
// deadline. What waits or streams for long should come to a good end then.
//
// ctx is the one given to build or Serve, or a request's, or one derived from
// them; for others the channel is nil, and never ready. That of build and Serve
// is closed when the drain begins. That of a request, which may have hijacked
// its connection, is closed when it is the connection's turn: connections that
// are asked for are told one after the other, over DrainSpread at most, lest
// their clients come back as one herd. After that the channel is closed from
// the start.
//
// The drain does not cancel a request's own context.
func Draining(ctx context.Context) <-chan struct{} {
	l := lifeOf(ctx)
	if l == nil {
		return nil
	}
	if c := connOf(ctx); c != nil {
		if told := l.turns.of(c); told != nil {
			return told
		}
	}
	return l.draining
}

// OnDrain has f called, on a goroutine of its own, when this process begins to
// drain; at once if it has begun. stop takes that back, unless f has been started
// and stop returns false. It is how a connection whose reader waits for a message
// learns of the drain:
//
//	defer framework.OnDrain(ctx, func() { c.SetReadDeadline(time.Now()) })()
//
// ctx is as for [Draining]; for others f is never called.
func OnDrain(ctx context.Context, f func()) (stop func() bool) {
	if l := lifeOf(ctx); l != nil {
		return context.AfterFunc(l.serve, f)
	}
	return func() bool { return true }
}

// OnStop has f called when this process ends: after the drain, the last given
// first. All together have KillTimeout, which is the deadline of f's context.
// ctx is the one given to build or Serve; for others OnStop panics, since f
// would never be called.
func OnStop(ctx context.Context, f func(context.Context) error) {
	l := lifeOf(ctx)
	if l == nil {
		panic("framework.OnStop: the context is not one of build or Serve")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hooks = append(l.hooks, f)
}
