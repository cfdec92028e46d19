package workers

import (
	"sync"
	"time"
)

// emitter delivers events in order without ever holding up who emits them.
type emitter struct {
	mu     sync.Mutex
	c      chan Event
	closed bool
	done   chan struct{}
}

const (
	waitingEvents = 1024
	lastEvents    = time.Second // for the subscriber to take what is left at the end
)

func newEmitter(f func(Event)) *emitter {
	e := &emitter{c: make(chan Event, waitingEvents), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		for ev := range e.c {
			if f != nil {
				f(ev)
			}
		}
	}()
	return e
}

func (e *emitter) emit(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	select {
	case e.c <- ev:
	default: // a subscriber that blocks loses events, not the pool its time
	}
}

// close delivers what waits and ends.
func (e *emitter) close() {
	e.mu.Lock()
	e.closed = true
	close(e.c)
	e.mu.Unlock()
	select {
	case <-e.done:
	case <-time.After(lastEvents):
	}
}
