package workers

import (
	"fmt"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

// within checks a delay against its value without jitter.
func within(t *testing.T, what string, got, full time.Duration) {
	t.Helper()
	// The counter decays a little even between two failures in a second.
	if got < full*74/100 || got > full {
		t.Errorf("%s: %v, want %v less up to a quarter", what, got, full)
	}
}

func TestFirstFailureIsReplacedAtOnceThenDelaysDouble(t *testing.T) {
	for range 50 { // for the jitter
		var b budget
		if d := b.fail(epoch, 0); d != 0 {
			t.Fatalf("first: %v, want 0", d)
		}
		full := firstBackoff
		for i := range 12 {
			within(t, fmt.Sprint("failure ", i+2), b.fail(epoch, 0), full)
			full = min(2*full, maxBackoff)
		}
	}
}

func TestDelayIsCappedHoweverOftenItFails(t *testing.T) {
	var b budget
	for range 10_000 {
		if d := b.fail(epoch, 0); d < 0 || d > maxBackoff {
			t.Fatalf("delay %v", d)
		}
	}
	within(t, "after 10000 failures", b.fail(epoch, 0), maxBackoff)
}

func TestJitterSpreads(t *testing.T) {
	lo, hi := maxBackoff, time.Duration(0)
	for range 200 {
		b := budget{failures: 1}
		b.last = epoch
		d := b.fail(epoch, 0)
		lo, hi = min(lo, d), max(hi, d)
	}
	if hi-lo < firstBackoff/10 {
		t.Errorf("200 delays between %v and %v: not spread", lo, hi)
	}
}

func TestFailuresAreForgottenByHalves(t *testing.T) {
	b := budget{failures: 8, last: epoch}
	b.decay(epoch.Add(failureHalfLife))
	if b.failures != 4 {
		t.Errorf("8 failures are %v after %v, want 4", b.failures, failureHalfLife)
	}
	b.decay(epoch.Add(3 * failureHalfLife))
	if b.failures != 1 {
		t.Errorf("and %v after two more, want 1", b.failures)
	}
	// A crash once an hour is replaced at once, for ever.
	now := epoch
	for range 100 {
		now = now.Add(time.Hour)
		if d := b.fail(now, 0); d != 0 {
			t.Fatalf("delay %v after an hour of peace", d)
		}
	}
}

func TestDeathAfterLongServiceCountsLittle(t *testing.T) {
	var b budget
	for range 100 {
		if d := b.fail(epoch, time.Minute); d != 0 {
			t.Fatalf("delay %v for a worker that served a minute", d)
		}
	}
	var short budget
	short.fail(epoch, 0)
	if d := short.fail(epoch, 0); d == 0 {
		t.Error("no delay for the second that died at once")
	}
}
