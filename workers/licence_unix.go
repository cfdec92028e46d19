//go:build unix

package workers

import (
	"os"
	"slices"
	"time"

	"github.com/baton-go/baton/listener"
)

// Where it is not the master that accepts, workers do, each by a licence for each
// listener. A licence carries the socket to accept from: the master's own, which
// all workers share (accept mode workers), or another one for each slot. That is
// all that the two differ in here, and socketFor is where they part.
//
//	none → sent → held → withdrawn → none
//	          └─────┴──────────────────┘
//
// The master gives licences to those in the rotation, and takes them away before
// a drain. It never waits for the answers: meanwhile, and where nobody has a
// licence, connections are in the kernel's queue. What a worker has accepted by
// the time it answers is its own. A message to drain ends all of its licences,
// and so does a commit, which says that the master accepts.

// licenceState is where a worker stands with the master about one listener.
type licenceState int

const (
	licenceNone      licenceState = iota
	licenceSent                   // not answered
	licenceHeld                   // the worker accepts
	licenceWithdrawn              // not answered
)

var licenceStates = [...]string{"none", "sent", "held", "withdrawn"}

func (s licenceState) String() string { return licenceStates[s] }

var licenceMoves = map[licenceState][]licenceState{
	licenceNone:      {licenceSent},
	licenceSent:      {licenceHeld, licenceNone},
	licenceHeld:      {licenceWithdrawn, licenceNone},
	licenceWithdrawn: {licenceNone},
}

// owing says whether an answer is outstanding.
func (s licenceState) owing() bool { return s == licenceSent || s == licenceWithdrawn }

// licencesSince is the version of the protocol that has licences. Generations that
// do not speak it get their connections from the master.
const licencesSince = 2

// mode is who accepts on our listener at, for the generations that serve.
func (p *Pool) mode(at int) listener.AcceptMode {
	g := p.serving
	if g == nil || g.speaks.Newest < licencesSince || p.rolling != nil && p.rolling.old.speaks.Newest < licencesSince {
		return listener.AcceptByMaster
	}
	mode, _ := p.modeFor(at, g.options.Accept[p.acceptors[at].key])
	return mode
}

// modeFor is the mode in which connections are accepted where a release asks for
// asked, and why it is another one, if it is.
func (p *Pool) modeFor(at int, asked listener.AcceptMode) (listener.AcceptMode, error) {
	switch asked {
	case listener.AcceptByWorkers:
		return asked, nil
	case listener.AcceptByKernel, listener.AcceptOnlyByKernel:
		if err := p.byKernel(at); err != nil {
			return listener.AcceptByMaster, err
		}
		return listener.AcceptByKernel, nil
	}
	return listener.AcceptByMaster, nil
}

// socketFor is what a licence of c for our listener at has it accept from. It is
// not the caller's. nil: there is none for c.
func (p *Pool) socketFor(c *child, at int, mode listener.AcceptMode) *os.File {
	if mode == listener.AcceptByKernel {
		return p.queues[at].socketOf(c.id.Slot)
	}
	return p.acceptors[at].l.File()
}

// inRotation says whether c may get connections, of whatever kind.
func (p *Pool) inRotation(c *child) bool {
	return c.state == WorkerServing && (c.gen == p.serving || p.rolling != nil && c.gen == p.rolling.old)
}

// license makes those accept that should, master and workers, and those cease
// that should not. First come those who are licensed: where they share a queue,
// there is always somebody who takes from it.
func (p *Pool) license() {
	if p.frozen || p.succeeds || p.gathered {
		return
	}
	p.growQueues()
	modes := make([]listener.AcceptMode, len(p.acceptors))
	for at, a := range p.acceptors {
		modes[at] = p.mode(at)
		if a.open {
			p.queues[at].start(modes[at])
		}
	}
	for _, withdraw := range []bool{false, true} {
		for _, g := range p.generations {
			for _, c := range g.children {
				if c.state < WorkerIsReady || c.state > WorkerIsDraining {
					continue
				}
				for n := range c.licences {
					at, ok := p.listenerOf(c, uint16(n))
					want := ok && p.acceptors[at].open && modes[at] != listener.AcceptByMaster && p.inRotation(c)
					switch s := c.licences[n]; {
					case withdraw && !want && s == licenceHeld:
						p.withdraw(c, n)
					case !withdraw && want && s == licenceNone && !c.expected:
						p.grant(c, n, p.socketFor(c, int(at), modes[at]))
					}
				}
			}
		}
	}
	for at, q := range p.queues {
		q.take(modes[at])
	}
}

// grant may fail for want of room in the socket; the next tick tries again.
func (p *Pool) grant(c *child, n int, socket *os.File) {
	raw, err := socket.SyscallConn() // or it is nil
	if err != nil {
		return
	}
	c.owed.Add(1)
	_ = raw.Control(func(fd uintptr) {
		err = c.conn.TrySend(msgLicence, encodeLicence(uint16(n)), []int{int(fd)})
	})
	if err != nil {
		c.owed.Add(-1)
		return
	}
	// Nobody knows how many connections it gets from now on.
	p.d.mu.Lock()
	c.window.fostered = true
	p.d.mu.Unlock()
	p.licenceMoves(c, n, licenceSent)
}

func (p *Pool) withdraw(c *child, n int) {
	c.owed.Add(1)
	if c.conn.TrySend(msgUnlicence, encodeLicence(uint16(n)), nil) != nil {
		c.owed.Add(-1)
		return
	}
	p.licenceMoves(c, n, licenceWithdrawn)
}

func (p *Pool) licenceMoves(c *child, n int, next licenceState) {
	move(&c.licences[n], next, licenceMoves)
	if next.owing() && c.owing.IsZero() {
		c.owing = time.Now()
	}
}

// licenceAnswered: a worker has said whether it accepts for itself.
func (p *Pool) licenceAnswered(c *child, n uint16, accepts bool) error {
	if int(n) >= len(c.licences) {
		return errProtocol
	}
	was := c.licences[n]
	switch {
	case accepts && was == licenceSent:
		p.licenceMoves(c, int(n), licenceHeld)
	case !accepts && was != licenceNone:
		p.licenceMoves(c, int(n), licenceNone)
	default:
		return errProtocol
	}
	p.licensing.tell()
	c.owing = time.Time{}
	if slices.ContainsFunc(c.licences, licenceState.owing) {
		c.owing = time.Now()
	}
	if accepts || was != licenceSent { // who cannot have it is asked at the next tick
		p.license()
	}
	return nil
}

// hush makes a worker that accepts for itself leave that to this master, until it
// is licensed, if it has all of its listeners.
func (p *Pool) hush(c *child) {
	if _, _, all := p.listenersOf(c); !all || c.state != WorkerServing {
		return
	}
	for _, s := range c.licences {
		if s == licenceSent || s == licenceHeld {
			c.owed.Add(1)
		}
	}
	c.say(msgCommit, nil)
}

// inheritLicences takes over those that the master before has given.
func (c *child) inheritLicences(r childRecord) {
	c.licences = make([]licenceState, len(r.Listeners))
	for n := range min(len(c.licences), len(r.Licences)) {
		if s := r.Licences[n]; s >= licenceNone && s <= licenceWithdrawn {
			c.licences[n] = s
		}
	}
	c.owed.Store(max(r.Owed, 0))
	if slices.ContainsFunc(c.licences, licenceState.owing) {
		c.owing = time.Now()
	}
}

// owes is for how long an answer to a licence has been waited for.
func (c *child) owes(now time.Time, late bool) time.Duration {
	if c.owing.IsZero() {
		return 0
	}
	if late {
		c.owing = now
	}
	return now.Sub(c.owing)
}

// accepted is how many connections c has accepted for itself: in all, and by our
// numbers of the listeners.
func (p *Pool) accepted(c *child) (all uint64, by []uint64) {
	by = make([]uint64, len(p.acceptors))
	for n, v := range readOwn(c.page, len(c.licences)) {
		all += uint64(v)
		if at, ok := p.listenerOf(c, uint16(n)); ok {
			by[at] += uint64(v)
		}
	}
	return all, by
}

// countOwn enters what c has accepted for itself into the books, at its end. As
// long as it lives its counters are the books.
func (p *Pool) countOwn(c *child) {
	all, by := p.accepted(c)
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	c.gen.ledger.accepted += all
	c.gen.ledger.acknowledged += all
	for at, n := range by {
		p.d.accepted[at] += n
	}
}

// workersAccept says whether there is a listener on which a worker accepts.
func (p *Pool) workersAccept() bool {
	for _, g := range p.generations {
		for _, c := range g.children {
			if !c.stalled && p.inRotation(c) && slices.Contains(c.licences, licenceHeld) {
				return true
			}
		}
	}
	return false
}

// news is a channel that is closed when something has changed, and renewed.
type news chan struct{}

func (n *news) tell() {
	close(*n)
	*n = make(news)
}

// withdrawWait bounds the wait of a commit for those who are to accept no more.
// One that does not answer is hung, and dealt with as such.
const withdrawWait = time.Second

// awaitWithdrawn waits until nobody accepts who is not in the rotation: who asks
// after a deploy is answered by the release that it was of.
func (p *Pool) awaitWithdrawn() {
	late := time.After(withdrawWait)
	for {
		var changed news
		if p.do(func() {
			if p.withdraws() {
				changed = p.licensing
			}
		}) != nil || changed == nil {
			return
		}
		select {
		case <-changed:
		case <-late:
			return
		case <-p.ended:
			return
		}
	}
}

func (p *Pool) withdraws() bool {
	for _, g := range p.generations {
		for _, c := range g.children {
			if !p.inRotation(c) && !c.stalled && c.state <= WorkerIsDraining && slices.ContainsFunc(c.licences, func(s licenceState) bool { return s != licenceNone }) {
				return true
			}
		}
	}
	return false
}
