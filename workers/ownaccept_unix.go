//go:build unix

package workers

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
)

// ownAcceptor accepts on a worker's own copy of a listener, or on the socket that
// a licence came with. It has no goroutine: one of those that the application has
// in Accept waits there for the kernel, in place of the others, so that a
// connection costs no switch between goroutines. It takes what the application
// asks for, one by one: the rest stays in the kernel's queue, where the other
// workers find it, and where it outlives this one.
//
// What comes from the master meanwhile makes it look up.
type ownAcceptor struct {
	l        *Listener
	fd       int
	owned    bool // fd is this acceptor's, and not the estate's
	licensed bool // by the master; the estate's lock guards it

	// The listener's lock guards what follows.
	ln      *listener.Listener // nil until it could be made
	stopped bool
	fds     [1]int
	wait    time.Duration // for want of descriptors
	timer   *time.Timer   // of that
}

// newOwnAcceptor begins to accept.
func newOwnAcceptor(l *Listener, fd int, owned bool) *ownAcceptor {
	a := &ownAcceptor{l: l, fd: fd, owned: owned, wait: minFullWait}
	l.mu.Lock()
	defer l.mu.Unlock()
	a.begin()
	return a
}

// begin makes this the acceptor of its listener, now or when there are
// descriptors. Called locked.
func (a *ownAcceptor) begin() {
	if a.stopped {
		return
	}
	if a.ln == nil && a.open() != nil {
		a.rest()
		return
	}
	a.l.own = a
	a.l.some.Broadcast()
}

// rest begins again after a pause. Called locked.
func (a *ownAcceptor) rest() {
	a.timer = time.AfterFunc(a.wait, func() {
		a.l.mu.Lock()
		defer a.l.mu.Unlock()
		a.begin()
	})
	a.wait = min(2*a.wait, maxFullWait)
}

func (a *ownAcceptor) open() error {
	fd, err := fcntlDup(a.fd)
	if err != nil {
		return err
	}
	i := a.l.info
	a.ln, err = listener.FromFile(listener.Spec{Name: i.Name, Network: i.Network, Address: i.Address}, os.NewFile(uintptr(fd), i.Name))
	return err
}

// accept waits for a connection, unless somebody does already, or until there is
// something else to do. Called locked.
func (a *ownAcceptor) accept() {
	l := a.l
	l.leads = true
	l.want()
	l.mu.Unlock()
	n, err := a.ln.Accept(a.fds[:], everything{})
	l.mu.Lock()
	l.leads = false
	l.left.Broadcast()
	l.some.Signal()
	if n > 0 { // also after a stop: it is ours
		a.wait = minFullWait
		l.waiting = append(l.waiting, incoming{fd: a.fds[0]})
	}
	switch {
	case a.stopped:
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.ln.Resume()
	case err != nil:
		l.own = nil
		a.rest()
	}
}

// stop ends the accepting. A sweep takes what is queued by then: with the last
// copy of the listener that would be reset.
func (a *ownAcceptor) stop(sweep bool) {
	l := a.l
	l.mu.Lock()
	defer l.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
	if l.own == a {
		l.own = nil
		a.ln.Pause()
		for l.leads {
			l.left.Wait()
		}
	}
	if a.owned {
		unix.Close(a.fd)
	}
	if a.ln == nil {
		return
	}
	fds := make([]int, acceptBatch)
	for n := 0; sweep && n < maxSwept; {
		got, _ := a.ln.TryAccept(fds, everything{})
		for _, fd := range fds[:got] {
			if !l.queue(incoming{fd: fd}) {
				unix.Close(fd)
			}
		}
		if n += got; got == 0 {
			break
		}
	}
	_ = a.ln.Release() // a socket file is the master's
}

// maxSwept is no less than any queue, and an end.
const maxSwept = 1 << 16

// everything is a gate that is open.
type everything struct{}

func (everything) Reserve(n int) int { return n }
func (everything) Refund(int)        {}
