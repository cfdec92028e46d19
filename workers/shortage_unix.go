//go:build unix

package workers

import (
	"sync"
	"time"
)

// shortage is a time in which accept fails for want of descriptors or memory.
// While a few come back and are gone again at once it goes on, so that it is
// told once and not with every connection.
type shortage struct {
	a *acceptor

	mu    sync.Mutex
	since time.Time   // zero: there is none
	eased time.Time   // when accept succeeded after it had last failed
	end   *time.Timer // when it has not failed for long enough
}

// calmTime without a failure ends a shortage. It is the longest pause between
// two attempts, too.
const calmTime = maxFullWait

// hits: accept has failed.
func (s *shortage) hits(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eased = time.Time{}
	if s.end != nil {
		s.end.Stop()
	}
	if s.since.IsZero() {
		s.since = time.Now()
		s.a.p.pressed.Add(1)
		s.a.p.emit(AcceptPaused{Listener: s.a.l.Name(), Reason: err.Error()})
	}
}

// eases: accept has succeeded.
func (s *shortage) eases() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || !s.eased.IsZero() {
		return
	}
	now := time.Now()
	s.eased = now
	s.end = time.AfterFunc(calmTime, func() { s.over(now) })
}

// over: it has not failed since eased, unless somebody knows better.
func (s *shortage) over(eased time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.eased.Equal(eased) {
		return
	}
	s.a.p.pressed.Add(-1)
	s.a.p.emit(AcceptResumed{Listener: s.a.l.Name(), After: eased.Sub(s.since)})
	s.since, s.eased = time.Time{}, time.Time{}
}
