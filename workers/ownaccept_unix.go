//go:build unix

package workers

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
)

// ownAcceptor accepts on a worker's own copy of a listener, or on the socket that
// a licence came with. It takes what the
// application asks for, one by one: the rest stays in the kernel's queue, where
// the other workers find it, and where it outlives this one.
type ownAcceptor struct {
	l        *Listener
	fd       int
	owned    bool // fd is this acceptor's, and not the estate's
	licensed bool // by the master; the estate's lock guards it
	quit     chan struct{}
	done     chan struct{}

	mu sync.Mutex
	ln *listener.Listener // nil until it could be made
}

func newOwnAcceptor(l *Listener, fd int, owned bool) *ownAcceptor {
	a := &ownAcceptor{l: l, fd: fd, owned: owned, quit: make(chan struct{}), done: make(chan struct{})}
	go a.run()
	return a
}

func (a *ownAcceptor) run() {
	defer close(a.done)
	fds := make([]int, 1)
	for a.open() != nil { // for want of descriptors
		if a.waits(time.After(minFullWait)) {
			return
		}
	}
	for wait := minFullWait; ; {
		_, err := a.ln.Accept(fds, a)
		quit := false
		switch {
		case err == nil:
			wait = minFullWait
			if !a.l.push(incoming{fd: fds[0]}) { // closed in this moment
				unix.Close(fds[0])
			}
			a.l.unpromise(1)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, listener.ErrNoRoom):
			quit = a.waits(nil)
		default:
			quit = a.waits(time.After(wait))
			wait = min(2*wait, maxFullWait)
		}
		if quit {
			return
		}
	}
}

// waits says whether it is time to end. Without a timer it waits until the
// application asks for a connection.
func (a *ownAcceptor) waits(timer <-chan time.Time) (quit bool) {
	asked := a.l.wanted
	if timer != nil {
		asked = nil
	}
	select {
	case <-asked:
	case <-timer:
	case <-a.quit:
		return true
	}
	return false
}

func (a *ownAcceptor) open() error {
	fd, err := fcntlDup(a.fd)
	if err != nil {
		return err
	}
	i := a.l.info
	ln, err := listener.FromFile(listener.Spec{Name: i.Name, Network: i.Network, Address: i.Address}, os.NewFile(uintptr(fd), i.Name))
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ln = ln
	select {
	case <-a.quit:
		ln.Pause()
	default:
	}
	return nil
}

// stop ends the accepting. A sweep takes what is queued by then: with the last
// copy of the listener that would be reset.
func (a *ownAcceptor) stop(sweep bool) {
	close(a.quit)
	a.mu.Lock()
	if a.ln != nil {
		a.ln.Pause()
	}
	a.mu.Unlock()
	<-a.done
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
			if !a.l.push(incoming{fd: fd}) {
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

// Reserve implements listener.Gate.
func (a *ownAcceptor) Reserve(n int) int { return a.l.promise(n) }

// Refund implements listener.Gate: what was asked for is asked for still.
func (a *ownAcceptor) Refund(n int) { a.l.unpromise(n) }
