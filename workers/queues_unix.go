//go:build unix

package workers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/baton-go/baton/listener"
)

// In accept mode kernel a listener has a socket for each slot, with a queue of its
// own, and the kernel gives connections to the live ones in turn. The worker of a
// slot has the licence to accept on its socket. All sockets are the master's, for
// ever: one whose slot has nobody to serve it, because its worker died, hangs,
// drains, or will not be replaced, is not live any more, but a connection may have
// been on its way to it. So the master accepts there itself, as in mode master, and
// goes on until there is a licence again. Whether a worker goes on accepting for a
// moment is of no importance: they share the queue.

// queues are the sockets of one listener: one, or with others beside it.
type queues struct {
	p      *Pool
	first  *acceptor       // of slot 1
	group  *listener.Group // nil if there is none
	failed error           // to make one
	why    error           // it cannot be used; nil: it can, if there is one
	said   string          // of that, last
	live   []int           // slots, from 0 on, that the group was last told

	mu     sync.Mutex
	beside []*acceptor // of the slots from 2 on
}

// all returns an acceptor for each socket.
func (q *queues) all() []*acceptor {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]*acceptor{q.first}, q.beside...)
}

// sockets returns an acceptor for each socket of each listener.
func (p *Pool) sockets() (as []*acceptor) {
	for _, q := range p.queues {
		as = append(as, q.all()...)
	}
	return as
}

// Sockets returns all that the pool accepts on: the listeners that it was made
// with, and what was bound beside them for the slots. They are the caller's to
// close, once the pool has swept them.
func (p *Pool) Sockets() (ls []*listener.Listener) {
	for _, a := range p.sockets() {
		ls = append(ls, a.l)
	}
	return ls
}

// add makes l the socket of the next slot.
func (q *queues) add(l *listener.Listener) *acceptor {
	a := newAcceptor(q.p, l, q.first.index, q.first.key)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.beside = append(q.beside, a)
	return a
}

// files are the sockets, for those who are to live on without a master.
func (q *queues) files() (fs []*os.File) {
	for _, a := range q.all() {
		fs = append(fs, a.l.File())
	}
	return fs
}

// byKernel says why connections of our listener at cannot be accepted in kernel
// mode, nil if they can.
func (p *Pool) byKernel(at int) error {
	q := p.queues[at]
	if q.group == nil && q.why == nil {
		return errNoGroupYet
	}
	return q.why
}

// errNoGroupYet: nobody has asked for it.
var errNoGroupYet = fmt.Errorf("%w: it has not been made", listener.ErrNoGroup)

// growQueues sees to it that those who serve have sockets.
func (p *Pool) growQueues() {
	if p.serving == nil {
		return
	}
	need := 1
	for _, g := range p.generations {
		for _, c := range g.children {
			if p.inRotation(c) {
				need = max(need, c.id.Slot)
			}
		}
	}
	for _, q := range p.queues {
		if byKernel(q.asked(p.serving)) {
			q.grow(need)
		}
	}
}

// makeQueues is for a generation that is about to serve: its workers are trusted
// with all sockets from the first moment on. The error is for one that is to be
// accepted for by the kernel and by nobody else.
func (p *Pool) makeQueues(g *generation) error {
	if p.frozen || p.gathered {
		return nil
	}
	for _, q := range p.queues {
		mode := q.asked(g)
		if !byKernel(mode) {
			continue
		}
		q.failed = nil // it may have been a passing one
		if q.grow(p.target(g)); q.why != nil && mode == listener.AcceptOnlyByKernel {
			return q.why
		}
	}
	return nil
}

// asked is the mode that a generation asks for.
func (q *queues) asked(g *generation) listener.AcceptMode { return g.options.Accept[q.first.key] }

func byKernel(m listener.AcceptMode) bool {
	return m == listener.AcceptByKernel || m == listener.AcceptOnlyByKernel
}

// mostSlots is how many there can be: each worker is to have copies of them all.
func (p *Pool) mostSlots() int { return min(maxTrusted/len(p.queues), listener.MaxSlots) }

// grow sees to it that so many slots have a socket, and remembers why they cannot.
// If just the last ones have none, it tries again.
func (q *queues) grow(need int) {
	if most := q.p.mostSlots(); need > most {
		q.why = q.lack(fmt.Errorf("%w: %d workers: expected at most %d", listener.ErrNoGroup, need, most))
		return
	}
	if q.group == nil && q.failed == nil {
		if q.group, q.failed = listener.NewGroup(q.listeners()...); q.failed != nil {
			_ = q.lack(q.failed)
		}
	}
	if q.why = q.failed; q.why != nil {
		return
	}
	grown := false
	for q.group.Len() < need {
		l, err := q.group.Add()
		if err != nil {
			_ = q.lack(err)
			break
		}
		q.add(l)
		grown = true
	}
	if grown {
		q.p.distrust()
	}
}

// socketOf returns the socket of a slot; nil if it has none.
func (q *queues) socketOf(slot int) *os.File {
	if all := q.all(); slot <= len(all) {
		return all[slot-1].l.File()
	}
	return nil
}

// start starts the loops that the master may accept with.
func (q *queues) start(mode listener.AcceptMode) {
	for i, a := range q.all() {
		if i > 0 || mode != listener.AcceptByWorkers {
			a.start()
		}
	}
}

// take has the master accept where no worker does, and the kernel choose among
// those slots where one does.
func (q *queues) take(mode listener.AcceptMode) {
	served := map[int]bool{} // by slot
	if mode == listener.AcceptByKernel {
		served = q.p.licensed(q.first.index)
	}
	var live []int
	for i, a := range q.all() {
		switch {
		case served[i+1]:
			live = append(live, i)
			a.pause(pausedForWorkers)
		case i == 0 && mode == listener.AcceptByWorkers:
			a.pause(pausedForWorkers)
		default:
			a.resume(pausedForWorkers)
		}
	}
	if len(live) == 0 {
		live = []int{0}
	}
	if q.group == nil || slices.Equal(live, q.live) {
		return
	}
	if err := q.group.SetLive(live...); err != nil {
		_ = q.lack(err) // it goes on as before: whoever gets a connection is served
		return
	}
	q.live = live
}

// licensed returns the slots of those that accept from our listener at, or are
// about to, and answer.
func (p *Pool) licensed(at int) map[int]bool {
	slots := map[int]bool{}
	for _, g := range p.generations {
		for _, c := range g.children {
			if !p.inRotation(c) || c.stalled {
				continue
			}
			for n, s := range c.licences {
				if our, ok := p.listenerOf(c, uint16(n)); ok && int(our) == at && (s == licenceSent || s == licenceHeld) {
					slots[c.id.Slot] = true
				}
			}
		}
	}
	return slots
}

func (q *queues) listeners() (ls []*listener.Listener) {
	for _, a := range q.all() {
		ls = append(ls, a.l)
	}
	return ls
}

// lack tells, once, why the master accepts from a listener.
func (q *queues) lack(err error) error {
	if why := err.Error(); why != q.said {
		q.said = why
		q.p.emit(KernelUnable{Listener: q.first.l.Name(), Reason: why})
	}
	return err
}

// regroup takes up what another master has made beside the listener of a key. It
// becomes a group when a generation asks for it, and is accepted on anyway.
func (p *Pool) regroup(key string, sockets []*os.File) error {
	var errs []error
	i, ok := p.byKey[key]
	for _, f := range sockets {
		if !ok {
			f.Close()
			continue
		}
		q := p.queues[i]
		l, err := listener.FromFile(q.first.l.Spec(), f)
		if err == nil && l.Addr().String() != q.first.l.Addr().String() {
			err = fmt.Errorf("listener %q: a socket beside it is bound to %s", l.Name(), l.Addr())
			l.Release()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		q.add(l)
	}
	return errors.Join(errs...)
}

// Gather makes the master accept everything, and lets new connections come to the
// sockets that the pool was made with: for the end of a service.
func (p *Pool) Gather() {
	_ = p.do(func() {
		p.gathered = true
		for _, q := range p.queues {
			for _, a := range q.all() {
				a.resume(pausedForWorkers)
			}
			if q.group != nil && q.group.Len() > 1 {
				_ = q.group.SetLive(0)
			}
		}
	})
}

// leaveGroups leaves the sockets as they are, for the next master or for the end.
func (p *Pool) leaveGroups() {
	for _, q := range p.queues {
		if q.group != nil {
			q.group.Leave()
			q.group, q.live = nil, nil
		}
	}
}

// besides counts the sockets beside the first of each listener that has some.
func (p *Pool) besides() map[string]int {
	n := map[string]int{}
	for _, q := range p.queues {
		if beside := len(q.all()) - 1; beside > 0 {
			n[q.first.key] = beside
		}
	}
	return n
}
