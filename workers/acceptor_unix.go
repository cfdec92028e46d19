//go:build unix

package workers

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/baton-go/baton/listener"
)

// acceptor takes connections from one listener, as far as there is room.
type acceptor struct {
	p     *Pool
	l     *listener.Listener
	index int
	key   string // identity of the listener across masters

	open bool // somebody can take its connections; the pool's goroutine's

	once    sync.Once
	mu      sync.Mutex // held from accept until the connections are placed
	pausing sync.Mutex
	paused  pause
	resumed chan struct{}
	ended   chan struct{}
	endOnce sync.Once

	shortage shortage
}

func newAcceptor(p *Pool, l *listener.Listener, index int, key string) *acceptor {
	resumed := make(chan struct{})
	close(resumed)
	a := &acceptor{p: p, l: l, index: index, key: key, resumed: resumed, ended: make(chan struct{})}
	a.shortage.a = a
	return a
}

func (a *acceptor) start() {
	a.once.Do(func() { go a.run() })
}

// Pauses for want of descriptors, the kernel's or ours.
const (
	minFullWait = 20 * time.Millisecond
	maxFullWait = time.Second
)

func (a *acceptor) run() {
	fds := make([]int, acceptBatch)
	wait := minFullWait
	for {
		n, err := a.accept(fds)
		if n > 0 {
			wait = minFullWait
			a.shortage.eases()
		}
		var timer <-chan time.Time
		var room <-chan struct{}
		switch {
		case err == nil:
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, listener.ErrNoRoom):
			room = a.p.d.wait()
		case errors.Is(err, os.ErrDeadlineExceeded):
			a.mu.Lock()
			room = a.resumed
			a.mu.Unlock()
		default:
			a.shortage.hits(err)
			timer = time.After(wait)
			wait = min(2*wait, maxFullWait)
		}
		select {
		case <-room:
		case <-timer:
			// What has become free is for the next worker first.
			a.p.reserve.topUp()
		case <-a.ended:
			return
		case <-a.p.ended:
			return
		}
	}
}

func (a *acceptor) accept(fds []int) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err := a.l.Accept(fds, a.p.d)
	if n > 0 {
		a.p.d.take(fds[:n], a.index)
	}
	return n, err
}

// pause is the set of reasons why a loop pauses.
type pause uint8

const (
	pausedForHandover pause = 1 << iota
	pausedForWorkers        // who accept for themselves
)

// pause stops accepting until resume. When it returns, every connection that
// was accepted has been placed.
func (a *acceptor) pause(why pause) {
	a.pausing.Lock()
	defer a.pausing.Unlock()
	was := a.paused
	if a.paused |= why; was != 0 {
		return
	}
	a.l.Pause()
	a.mu.Lock()
	a.resumed = make(chan struct{})
	a.mu.Unlock()
}

// resume ends the pause if there is no other reason for it.
func (a *acceptor) resume(why pause) {
	a.pausing.Lock()
	defer a.pausing.Unlock()
	was := a.paused
	if a.paused &^= why; was == 0 || a.paused != 0 {
		return
	}
	select {
	case <-a.ended:
		return
	default:
	}
	a.l.Resume()
	a.mu.Lock()
	close(a.resumed)
	a.mu.Unlock()
}

// stop ends the loop for good.
func (a *acceptor) stop() {
	a.endOnce.Do(func() {
		close(a.ended)
		a.l.Pause()
	})
	a.mu.Lock() // from here on it is out of accept
	defer a.mu.Unlock()
}

// sweep accepts what the kernel has queued by now.
func (a *acceptor) sweep(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fds := make([]int, acceptBatch)
	for {
		n, err := a.l.TryAccept(fds, a.p.d)
		var again <-chan time.Time
		switch {
		case n > 0:
			a.p.d.take(fds[:n], a.index)
		case errors.Is(err, listener.ErrFDLimit):
			again = time.After(minFullWait)
		case err == nil || !errors.Is(err, listener.ErrNoRoom) || !a.l.Queued():
			return
		}
		if n > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-a.p.d.wait():
		case <-again:
		case <-ctx.Done():
			return
		case <-a.p.ended:
			return
		}
	}
}
