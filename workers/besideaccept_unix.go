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

// besideAcceptor accepts, for an orphan, from a socket that another slot had, or
// may have lost: beside the one that the application's Accept waits at. It takes
// what the application asks for, one by one, as that does.
type besideAcceptor struct {
	l    *Listener
	fd   int // the estate's
	quit chan struct{}
	done chan struct{}

	mu sync.Mutex
	ln *listener.Listener // nil until it could be made
}

func newBesideAcceptor(l *Listener, fd int) *besideAcceptor {
	a := &besideAcceptor{l: l, fd: fd, quit: make(chan struct{}), done: make(chan struct{})}
	l.mu.Lock()
	l.beside++
	l.mu.Unlock()
	go a.run()
	return a
}

func (a *besideAcceptor) run() {
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
func (a *besideAcceptor) waits(timer <-chan time.Time) (quit bool) {
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

func (a *besideAcceptor) open() error {
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

// stop ends the accepting, after a sweep if it is to have one: see ownAcceptor.
func (a *besideAcceptor) stop(sweep bool) {
	close(a.quit)
	a.mu.Lock()
	if a.ln != nil {
		a.ln.Pause()
	}
	a.mu.Unlock()
	<-a.done
	a.l.mu.Lock()
	a.l.beside--
	a.l.mu.Unlock()
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
	_ = a.ln.Release()
}

// Reserve implements listener.Gate: connections are set aside for one who is about
// to accept them, as many as the application waits for.
func (a *besideAcceptor) Reserve(n int) int {
	l := a.l
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, l.wants())
	l.promised += n
	return n
}

// Refund implements listener.Gate: what was asked for is asked for still.
func (a *besideAcceptor) Refund(n int) { a.l.unpromise(n) }

// unpromise ends a promise, with or without a connection. Another one may have
// what the application still waits for.
func (l *Listener) unpromise(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.promised -= n; l.wants() > 0 {
		l.want()
	}
}

// wants is how many connections the application waits for, and nobody is about to
// accept. Called locked.
func (l *Listener) wants() int {
	if l.closed || l.ended {
		return 0
	}
	asking := l.asking
	if l.leads {
		asking++
	}
	return max(asking-len(l.waiting)-len(l.taken)-l.promised, 0)
}

// want tells those beside that the application waits. Called locked.
func (l *Listener) want() {
	if l.beside == 0 {
		return
	}
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}
