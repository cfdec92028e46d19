package framework

import (
	"testing"
	"time"

	"github.com/baton-go/baton/workers"
)

// TestDrainIsOnlyEverShortened: a stop during a drain counts from its own
// beginning, but neither deadline nor grace move away again.
func TestDrainIsOnlyEverShortened(t *testing.T) {
	l := newLife(func() int { return 7 })
	left := func() (deadline, grace time.Duration) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Until(l.deadline).Round(time.Minute), time.Until(l.graceAt).Round(time.Minute)
	}
	for _, step := range []struct {
		order           workers.DrainOrder
		deadline, grace time.Duration
	}{
		{workers.DrainOrder{Timeout: 3 * time.Hour, Grace: 30 * time.Minute}, 3 * time.Hour, 30 * time.Minute},
		{workers.DrainOrder{Timeout: 4 * time.Hour, Grace: time.Minute}, 3 * time.Hour, 30 * time.Minute},
		{workers.DrainOrder{Timeout: 2 * time.Hour, Grace: time.Hour}, 2 * time.Hour, 30 * time.Minute},
		{workers.DrainOrder{Timeout: time.Hour, Grace: 10 * time.Minute}, time.Hour, 10 * time.Minute},
		{workers.DrainOrder{Timeout: 5 * time.Minute, Grace: time.Hour}, 5 * time.Minute, 5 * time.Minute},
	} {
		l.drain(step.order)
		if deadline, grace := left(); deadline != step.deadline || grace != step.grace {
			t.Errorf("%+v: %v and %v left, want %v and %v", step.order, deadline, grace, step.deadline, step.grace)
		}
		select {
		case <-l.draining:
		default:
			t.Fatal("the drain has not begun")
		}
	}
	if l.wereCut() != 0 {
		t.Error("cut too early")
	}
	l.drain(workers.DrainOrder{})
	await(t, l.graceUp, "the end of the grace")
	await(t, l.cut, "the cut")
	if n := l.wereCut(); n != 7 {
		t.Errorf("%d cut, want 7", n)
	}
	if l.base.Err() != nil {
		t.Error("build's context ended with the cut")
	}
	if err := l.end(time.Second); err != nil || l.base.Err() == nil {
		t.Errorf("end: %v, context %v", err, l.base.Err())
	}
}
