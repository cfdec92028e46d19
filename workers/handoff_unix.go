//go:build unix

package workers

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"time"
)

// An application hands a connection off when it is at the boundary of a message:
// it goes to the master and on to a worker of the serving generation, as idle
// ones do, but to the listener's adopter there and not to who accepts.

// loan is a connection that can be lent to the master: until it is kept or
// released nobody here can read it, write to it or shut it down.
type loan interface {
	returnable
	lend() error
	unread() []byte
	keep()
}

// handoff gives c to a worker of the serving generation, with the bytes that
// were read from it and not used, and with state. nil: it has gone. Otherwise it
// is as it was.
func (w *Worker) handoff(c loan, listener uint16, unread, state []byte) error {
	if len(state) > MaxState {
		return fmt.Errorf("%w: %d bytes of state, at most %d", ErrTooLarge, len(state), MaxState)
	}
	if err := c.lend(); err != nil {
		return err
	}
	m := Moved{Handoff: true, State: state, Unread: slices.Concat(unread, c.unread())}
	if len(m.Unread) > MaxUnread {
		c.keep()
		return fmt.Errorf("%w: %d unread bytes, at most %d", ErrTooLarge, len(m.Unread), MaxUnread)
	}
	late := time.NewTimer(handoffTime)
	defer late.Stop()
	for {
		err := w.offer(c, listener, m, late.C)
		if err == nil {
			break
		}
		if errors.Is(err, errBusy) {
			select {
			case <-time.After(handoffPause):
				continue
			case <-late.C:
				err = errLate
			case <-w.orphaned:
				err = ErrNobody
			}
		}
		c.keep()
		return err
	}
	w.moved.Add(1)
	c.release()
	return nil
}

// OnAdopt has f called for each connection that is handed off to this listener,
// with its state, on a goroutine of its own. It must be called before Ready.
func (l *Listener) OnAdopt(f func(net.Conn, []byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adopter = f
}

// adopt takes a connection that was handed off, whether or not anybody accepts,
// and acknowledges it before a byte is read. The master sends none after its
// order to drain; one that crosses a drain of the worker's own goes back.
func (l *Listener) adopt(in incoming) {
	l.mu.Lock() // so that a drain either counts it or has refused it
	defer l.mu.Unlock()
	if l.adopter == nil || l.ended {
		in.close()
		if l.adopter == nil {
			in.from.settle(msgUnadopted, []uint64{in.id})
		} else {
			in.from.settle(msgNack, []uint64{in.id})
		}
		return
	}
	c, err := newConn(l, in)
	if isLoad(err) {
		in.from.settle(msgNack, []uint64{in.id})
		return
	}
	in.from.settle(msgAck, []uint64{in.id}) // also of what nobody could make a connection of
	if err == nil {
		go l.adopter(c, in.moved.State)
	}
}

// adopted says whether the serving generation takes what is handed off to a
// listener. Called locked.
func (d *dispatcher) adopted(listener uint16) bool {
	return int(listener) < len(d.adopts) && d.adopts[listener]
}

// noListener is the listener of connections that an earlier master accepted
// from one which this master does not have. Who holds them may keep them;
// nobody else can be given them.
const noListener = math.MaxUint16

// lost is why nobody can be given h any more, "" if somebody can. Called locked.
func (d *dispatcher) lost(h held) (why string) {
	switch {
	case h.listener == noListener:
		return refusedListener
	case d.serving != nil && h.moved != nil && h.moved.Handoff && !d.adopted(h.listener):
		return refusedAdopter
	}
	return ""
}

// refuseLost takes what is lost out of the queue, for the caller to close once
// the lock is free.
func (d *dispatcher) refuseLost() (fds []int) {
	d.queue = slices.DeleteFunc(d.queue, func(h held) bool {
		why := d.lost(h)
		if why != "" {
			h.ledger.refuse(why)
			fds = h.files(fds)
		}
		return why != ""
	})
	return fds
}

// unadopted closes connections that were handed off to a worker which does not
// adopt them, though its generation says so: the next one would not either.
func (d *dispatcher) unadopted(w *window, payload []byte) error {
	n, err := idCount(payload)
	if err != nil {
		return err
	}
	var refused []int
	d.mu.Lock()
	for i := range n {
		h, ok := w.remove(idAt(payload, i))
		switch {
		case !ok:
			err = errProtocol
		case h.moved != nil && h.moved.Handoff:
			h.ledger.refuse(refusedAdopter)
			refused = h.files(refused)
		default: // it has to accept
			err = errProtocol
			if !d.requeue(h) {
				refused = h.files(refused)
			}
		}
	}
	d.oldestFirst()
	d.flush()
	d.mu.Unlock()
	closeForeign(refused)
	return err
}
