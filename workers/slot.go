package workers

import (
	"math"
	"math/rand/v2"
	"time"
)

// Respawn timing. The budget is a failure counter that decays exponentially,
// the model of thejerf/suture: a counter that never forgot would punish a
// service that crashes once a week.
const (
	failureHalfLife = 30 * time.Second
	firstBackoff    = 100 * time.Millisecond
	maxBackoff      = 10 * time.Second
)

// budget decides how long to wait before a slot is filled again. Respawning
// never stops; it only gets slower while workers keep failing.
type budget struct {
	failures float64
	last     time.Time
}

// fail records that a worker died unasked and returns the delay before its
// replacement is started: none for the first, then doubling up to 10 s, with
// up to a quarter of jitter so that slots which failed together do not return
// together. A worker that served for a while counts less: one that was killed
// after a minute is no sign of a release that cannot start.
func (b *budget) fail(now time.Time, served time.Duration) time.Duration {
	b.decay(now)
	b.failures += math.Exp2(-served.Seconds())
	if b.failures <= 1 {
		return 0
	}
	backoff := time.Duration(float64(firstBackoff) * math.Exp2(math.Min(b.failures-1, 20)) / 2)
	backoff = min(backoff, maxBackoff)
	return backoff - time.Duration(rand.Int64N(int64(backoff)/4+1))
}

func (b *budget) decay(now time.Time) {
	if !b.last.IsZero() {
		b.failures *= math.Exp2(-now.Sub(b.last).Seconds() / failureHalfLife.Seconds())
	}
	b.last = now
}
