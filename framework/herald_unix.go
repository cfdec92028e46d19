//go:build unix

package framework

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/baton-go/baton/internal/systemd"
)

// herald tells systemd how the service is. It holds nothing up for longer than a
// message takes to be given up, and what systemd does not hear harms nobody.
//
// A new master says nothing until it has taken over, an old one nothing after.
type herald struct {
	n        *systemd.Notifier // nil: there is nobody to tell
	watchdog time.Duration     // it is to be heard of at least so often; 0: it need not
	log      *slog.Logger
	look     func() string // how the service is; blocks while the pool does not turn
	kick     chan struct{}

	mu     sync.Mutex
	silent bool
	until  time.Time // what goes on may take until then; zero: nothing goes on
	deaf   bool      // systemd did not hear the last message

	// Owned by run.
	answer chan string // of look; nil: it is not being asked
	last   string
	stuck  bool
}

const (
	heraldBeat   = 5 * time.Second
	heraldRest   = 10 * time.Millisecond  // a watchdog in more of a hurry is not served
	extension    = 4 * heraldBeat         // asked for at each beat, while something goes on
	extendMargin = 5 * time.Second        // over the time that it may take
	calm         = 100 * time.Millisecond // after a change, since few come alone
)

func newHerald(socket string, log *slog.Logger, silent bool) *herald {
	return &herald{
		n: systemd.NewNotifier(socket), watchdog: systemd.WatchdogTime(), log: log,
		kick: make(chan struct{}, 1), silent: silent,
	}
}

// changed has the status looked at soon.
func (h *herald) changed() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// busy says what begins, and that it may take some time.
func (h *herald) busy(d time.Duration, lines ...string) {
	defer h.changed()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = time.Now().Add(d + extendMargin)
	h.tell(append(lines, systemd.ExtendTimeout(min(d+extendMargin, extension)))...)
}

// done says that what was going on is done: the service serves, also when a
// deploy was refused.
func (h *herald) done() {
	defer h.changed()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = time.Time{}
	h.tell(h.well()...)
}

// well says that the service serves. The time that it was given for what went on
// it was given by the watchdog, too, until that hears of it again.
func (h *herald) well() []string {
	if h.watchdog > 0 {
		return []string{systemd.Ready, systemd.Watchdog}
	}
	return []string{systemd.Ready}
}

// speak ends the silence of a new master. That it serves says the old one, who
// is believed.
func (h *herald) speak() {
	h.mu.Lock()
	h.silent = false
	h.mu.Unlock()
	h.changed()
}

// replaced says who is the master now. It returns when systemd has heard it: for
// systemd the end of the old one is that of the service otherwise.
func (h *herald) replaced(pid int) {
	h.mu.Lock()
	h.tell(append([]string{systemd.MainPID(pid)}, h.well()...)...)
	h.silent = true
	h.mu.Unlock()
	h.settle()
}

// reclaim makes systemd see that a new master is a child of its own now.
func (h *herald) reclaim(ctx context.Context) {
	if h.n == nil {
		return
	}
	if err := h.n.Reclaim(ctx); err != nil {
		h.log.Warn("systemd may kill this master at a stop, rather than wait for it", "reason", err.Error())
		return
	}
	h.log.Debug("systemd has this master for its child")
}

// settle waits until systemd has acted on all that was said.
func (h *herald) settle() {
	if err := h.n.Barrier(barrierTime); err != nil {
		h.log.Warn("systemd may not have heard what it was told", "reason", err.Error())
	}
}

// tell sends lines. The lock keeps what is said in order.
func (h *herald) tell(lines ...string) {
	if !h.silent {
		h.sayLocked(h.n.Notify(lines...))
	}
}

// say logs that systemd does not hear us, once.
func (h *herald) say(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sayLocked(err)
}

func (h *herald) sayLocked(err error) {
	if err != nil && !h.deaf {
		h.log.Warn("systemd does not hear how the service is", "reason", err.Error())
	}
	h.deaf = err != nil
}

// run tells what changes, and that the pool turns, until quit.
func (h *herald) run(quit <-chan struct{}) error {
	if h.n == nil {
		<-quit
		return nil
	}
	beat := heraldBeat
	if h.watchdog > 0 {
		beat = max(min(beat, h.watchdog/2), heraldRest)
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	h.report(beat / 2)
	for {
		select {
		case <-quit:
			return nil
		case <-ticker.C:
		case <-h.kick:
			select {
			case <-quit:
				return nil
			case <-time.After(min(calm, beat/4)):
			}
		}
		h.report(beat / 2)
	}
}

// report looks, for no longer than bound, and tells. A pool that does not answer
// is not vouched for.
func (h *herald) report(bound time.Duration) {
	if h.answer == nil {
		h.answer = make(chan string, 1)
		go func(c chan<- string) { c <- h.look() }(h.answer)
	}
	var line string
	select {
	case line = <-h.answer:
		h.answer, h.stuck = nil, false
	case <-time.After(bound):
		if !h.stuck {
			h.log.Error("the master is stuck, systemd is not told that it is well", "after", bound.String())
		}
		h.stuck = true
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	if line != h.last {
		lines = append(lines, systemd.Status(line))
	}
	if h.watchdog > 0 {
		lines = append(lines, systemd.Watchdog)
	}
	if left := time.Until(h.until); left > 0 {
		lines = append(lines, systemd.ExtendTimeout(min(left, extension)))
	}
	if len(lines) == 0 || h.silent {
		return
	}
	h.tell(lines...)
	h.last = line
}
