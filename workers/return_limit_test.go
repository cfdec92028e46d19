//go:build unix

package workers

import (
	"errors"
	"testing"
	"time"

	"github.com/baton-go/baton/workers/dispatch"
)

// A worker cannot bring more than it ever got.
func TestReturnsOfNothingBreakTheProtocol(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	a := newDrainingFar(t, d)
	a.w.dispatched = 2
	for id := range uint64(2) {
		_, conn := connected(t)
		a.mustGiveBack(id, conn, Moved{})
		a.answered(Taken, 1)
	}
	_, conn := connected(t)
	if err := a.giveBack(2, conn, Moved{}); !errors.Is(err, errProtocol) {
		t.Errorf("one more: %v", err)
	}
	for range 2 {
		id, _, _ := fars[0].moved()
		fars[0].ack(id)
	}
	checkLedger(t, d.serving, 0)
}

// A worker that shuts the reading side of its socket, and so can be answered
// nothing, is bounded as one that does not read.
func TestReturnsWithoutAnAnswerAreBounded(t *testing.T) {
	d, _ := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	a := newDrainingFar(t, d)
	if err := a.conn.Shutdown(); err != nil {
		t.Fatal(err)
	}
	taken := 0
	for id := range uint64(300) {
		_, conn := connected(t)
		if err := a.giveBack(id, conn, Moved{}); err == nil {
			taken++
		} else if !errors.Is(err, errProtocol) {
			t.Fatal(err)
		}
	}
	if taken > 2*maxReturns {
		t.Errorf("%d of 300 were taken", taken)
	}
}

// What a dead worker was giving back before anybody serves is not lost.
func TestReturnOfTheDeadWaitsForTheFirstToServe(t *testing.T) {
	d := newDispatcher(dispatch.RoundRobin())
	d.accepted = make([]uint64, 2)
	a := newDrainingFar(t, d)
	client, conn := connected(t)
	a.mustGiveBack(1, conn, Moved{})
	a.die()
	for end := time.Now().Add(10 * time.Second); len(d.queued()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not queued")
		}
	}
	if !openSocket(t, client) {
		t.Error("the client sees the end of the connection")
	}
	next, _ := nextGenerationOf(t, d)
	id, _, _ := next.moved()
	next.ack(id)
}

// nextGenerationOf makes the first generation serve.
func nextGenerationOf(t *testing.T, d *dispatcher) (*far, *ledger) {
	t.Helper()
	l := newLedger(1)
	a := newFar(t, d, 1, l)
	t.Cleanup(func() { closeAll(d, []*far{a}) })
	d.serve([]*window{a.w}, l, nil, rule{})
	return a, l
}
