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

// queues are the sockets of one listener.
type queues struct {
	p     *Pool
	first *acceptor // of slot 1
	group *listener.Group
	live  []int    // of the group, from 0 on; nil before there is one
	holds []*child // by place in the group: whose worker has the licence
	lacks string   // why there is no group, as last said

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

// allot gives the socket of each slot to the worker that serves in it, and to
// nobody where none does. It is called whenever that may have changed, and again
// with each tick: what cannot be done for want of room or descriptors can be later.
func (p *Pool) allot() {
	if p.frozen || p.gathered {
		return
	}
	holders := p.holders()
	for _, q := range p.queues {
		q.allot(holders)
	}
}

// holders are those that have a licence, by slot. Where two serve in one slot it
// is the one that stays.
func (p *Pool) holders() map[int]*child {
	hs := map[int]*child{}
	consider := func(g *generation) {
		if !g.options.Kernel {
			return
		}
		for _, c := range g.children {
			if c.state == WorkerServing && !c.expected && !c.stalled {
				hs[c.id.Slot] = c
			}
		}
	}
	if p.rolling != nil {
		consider(p.rolling.old)
	}
	if p.serving != nil {
		consider(p.serving)
	}
	return hs
}

func (q *queues) allot(holders map[int]*child) {
	need := 0
	for slot := range holders {
		need = max(need, slot)
	}
	if need > 0 && !q.grow(need) {
		holders = nil
	}
	if q.group == nil {
		return
	}
	all := q.all()
	live := []int{}
	for i, a := range all {
		c := holders[i+1]
		if c != nil && q.holds[i] != c && !q.p.license(c, a) {
			c = nil
		}
		if q.holds[i] = c; c == nil {
			a.resume(restLicensed)
			continue
		}
		a.pause(restLicensed)
		live = append(live, i)
	}
	if len(live) == 0 {
		live = append(live, 0)
	}
	if slices.Equal(live, q.live) {
		return
	}
	if err := q.group.SetLive(live...); err != nil {
		q.lack(err) // as before: whoever gets a connection is served
		return
	}
	q.live = live
}

// makeQueues is for a generation that is about to serve: its workers are trusted
// with all sockets from the first moment on.
func (p *Pool) makeQueues(g *generation) {
	if !g.options.Kernel || p.frozen || p.gathered {
		return
	}
	for _, q := range p.queues {
		q.grow(p.target(g))
	}
}

// mostSlots is how many there can be: each worker is to have copies of them all.
func (p *Pool) mostSlots() int { return min(maxTrusted/len(p.queues), listener.MaxSlots) }

// grow sees to it that so many slots have a socket. It returns false if they cannot
// have one; if just the last of them have none, it tries again.
func (q *queues) grow(need int) bool {
	if most := q.p.mostSlots(); need > most {
		q.lack(fmt.Errorf("%d workers: expected at most %d", need, most))
		return false
	}
	if q.group == nil {
		g, err := listener.NewGroup(q.listeners()...)
		if err != nil {
			q.lack(err)
			return false
		}
		q.group = g
	}
	grown := false
	for q.group.Len() < need {
		l, err := q.group.Add()
		if err != nil {
			q.lack(err) // those beyond are served by the master
			break
		}
		a := q.add(l)
		if q.first.started.Load() {
			a.start()
		}
		grown = true
	}
	q.holds = append(q.holds, make([]*child, q.group.Len()-len(q.holds))...)
	if grown {
		q.p.distrust()
	}
	return true
}

func (q *queues) listeners() (ls []*listener.Listener) {
	for _, a := range q.all() {
		ls = append(ls, a.l)
	}
	return ls
}

// lack says why a listener is accepted on by the master, once.
func (q *queues) lack(err error) {
	if why := err.Error(); why != q.lacks {
		q.lacks = why
		q.p.emit(KernelUnable{Listener: q.first.l.Name(), Reason: why})
	}
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
				a.resume(restLicensed)
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

// license is here until workers can be given one.
func (p *Pool) license(*child, *acceptor) bool { return false }
