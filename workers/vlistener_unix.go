//go:build unix

package workers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listener is a worker's view of a listener that its master owns: a
// net.Listener whose connections come over the socket to the master.
//
// A connection is acknowledged when it is accepted here, before a byte of it
// is read. Until then the master keeps it, and gives it to another worker
// should this one die.
type Listener struct {
	w     *Worker
	info  ListenerInfo
	index uint16 // in the master's order
	addr  net.Addr

	mu      sync.Mutex
	some    sync.Cond
	waiting []incoming // sent by the master, or of own, and not accepted
	taken   []net.Conn // acknowledged, to be returned next
	asked   bool       // Accept has been called
	closed  bool       // by the application
	ended   bool       // the master sends no more
	adopter func(net.Conn, []byte)

	own   *ownAcceptor // by which this worker accepts for itself; nil if it does not
	leads bool         // an Accept waits there
	left  sync.Cond    // told when it does no more

	beside   int           // acceptors from sockets of other slots
	asking   int           // Accepts that wait elsewhere
	promised int           // connections that one of beside is about to accept
	wanted   chan struct{} // told them that there is an Accept; holds one

	first chan struct{} // closed at the first Accept
	empty chan struct{} // closed when ended and everything has been accepted
}

type incoming struct {
	id    uint64
	fd    int
	moved *Moved // it comes from another worker
	token int    // of that one, see there; 0: there is none
	from  *link  // whose master has a copy of it; nil: nobody has
}

func newListener(w *Worker, info ListenerInfo, index uint16) *Listener {
	l := &Listener{w: w, info: info, index: index, addr: parseAddr(info), wanted: make(chan struct{}, 1), first: make(chan struct{}), empty: make(chan struct{})}
	l.some.L, l.left.L = &l.mu, &l.mu
	return l
}

func parseAddr(info ListenerInfo) net.Addr {
	if info.Network == "unix" {
		return &net.UnixAddr{Name: info.Address, Net: "unix"}
	}
	if ap, err := netip.ParseAddrPort(info.Address); err == nil {
		return net.TCPAddrFromAddrPort(ap)
	}
	return &net.TCPAddr{}
}

// Name returns the listener's name.
func (l *Listener) Name() string { return l.info.Name }

// Addr returns the address that the master listens on.
func (l *Listener) Addr() net.Addr { return l.addr }

// Asked is closed when Accept has been called for the first time.
func (l *Listener) Asked() <-chan struct{} { return l.first }

// Empty is closed when the master sends no more and all has been accepted.
func (l *Listener) Empty() <-chan struct{} { return l.empty }

// push queues a connection; false when the application closed the listener.
func (l *Listener) push(in incoming) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue(in)
}

func (l *Listener) queue(in incoming) bool {
	if l.closed {
		return false
	}
	l.waiting = append(l.waiting, in)
	l.some.Signal()
	l.lookUp()
	return true
}

// lookUp makes an Accept that waits for the kernel see what else there is. Called
// locked.
func (l *Listener) lookUp() {
	if l.own != nil && l.leads {
		l.own.ln.Pause()
	}
}

// end: the master sends no more.
func (l *Listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.some.Broadcast()
	l.lookUp()
	l.checkEmpty()
}

func (l *Listener) checkEmpty() {
	if l.ended && len(l.waiting) == 0 && len(l.taken) == 0 {
		select {
		case <-l.empty:
		default:
			close(l.empty)
		}
	}
}

// Accept returns the next connection, or net.ErrClosed when the listener was
// closed or the worker drains and nothing is left.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.asked {
		l.asked = true
		close(l.first)
	}
	for {
		if len(l.taken) > 0 { // acknowledged: ours even after Close
			c := l.taken[0]
			l.taken[0] = nil
			l.taken = l.taken[1:]
			l.checkEmpty()
			return c, nil
		}
		if l.closed && len(l.waiting) == 0 {
			return nil, &net.OpError{Op: "accept", Net: l.info.Network, Addr: l.addr, Err: net.ErrClosed}
		}
		if len(l.waiting) > 0 {
			l.acknowledge()
			continue
		}
		if l.ended {
			return nil, &net.OpError{Op: "accept", Net: l.info.Network, Addr: l.addr, Err: net.ErrClosed}
		}
		if l.own != nil && !l.leads {
			l.own.accept()
			continue
		}
		l.asking++
		l.want()
		l.some.Wait()
		l.asking--
	}
}

// acknowledge makes connections of what waits, a batch at a time, and tells
// the master in one message that they are ours.
func (l *Listener) acknowledge() {
	batch := l.waiting[:min(len(l.waiting), acceptBatch)]
	from := batch[0].from
	if !from.alive() {
		if !roomFor(batch[0].fd) { // it is lost if it cannot be made, so it waits
			l.mu.Unlock()
			time.Sleep(minFullWait)
			l.mu.Lock()
			return
		}
		batch = batch[:1]
	}
	var yes, no [acceptBatch]uint64
	ny, nn := 0, 0
	l.taken = l.taken[:0]
	for i, in := range batch {
		if in.from != from { // another master's
			batch = batch[:i]
			break
		}
		c, err := newConn(l, in)
		if err == nil {
			l.taken = append(l.taken, c)
		}
		if isLoad(err) {
			no[nn] = in.id
			nn++
			continue
		}
		// One that cannot be made into a connection for any other reason
		// would fail in the next worker too: it is ours, and closed.
		yes[ny] = in.id
		ny++
	}
	n := copy(l.waiting, l.waiting[len(batch):])
	l.waiting = l.waiting[:n]
	if ny > 0 {
		from.settle(msgAck, yes[:ny])
	}
	if nn > 0 {
		from.settle(msgNack, no[:nn])
	}
	l.checkEmpty()
}

func isLoad(err error) bool {
	for _, errno := range []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Close makes Accept fail, after it has returned the few connections that are
// acknowledged already. What else the master sent goes back to it, and to
// another worker.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: l.info.Network, Addr: l.addr, Err: net.ErrClosed}
	}
	l.closed = true
	for len(l.waiting) > 0 {
		from := l.waiting[0].from
		var ids [acceptBatch]uint64
		n := 0
		for ; n < min(len(l.waiting), acceptBatch) && l.waiting[n].from == from; n++ {
			in := l.waiting[n]
			ids[n] = in.id
			if from.alive() {
				in.close()
			} else if c, err := newConn(l, in); err == nil {
				l.taken = append(l.taken, c) // there is nobody to send it back to
			}
		}
		from.settle(msgNack, ids[:n])
		l.waiting = l.waiting[n:]
	}
	l.some.Broadcast()
	l.lookUp()
	l.checkEmpty()
	return nil
}

// Discard closes what is acknowledged and was never accepted: nobody calls
// Accept any more.
func (l *Listener) Discard() {
	_ = l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.taken {
		c.Close()
	}
	l.taken = nil
	l.checkEmpty()
}

// newConn makes a net.Conn of a descriptor that it owns from then on, and claims
// the connection if it comes from another worker.
func newConn(l *Listener, in incoming) (c net.Conn, err error) {
	defer func() {
		if err == nil {
			claim(in.token)
		} else if in.token != 0 {
			unix.Close(in.token)
		}
	}()
	var made *conn
	if l.info.Network == "unix" {
		u := new(unixConn)
		c, made = u, &u.conn
	} else {
		t := new(tcpConn)
		c, made = t, &t.conn
	}
	if in.moved != nil {
		// The application that had it may have changed that.
		_ = unix.SetNonblock(in.fd, true)
	}
	if err := made.inner.open(in.fd, l.info.Network, l.addr); err != nil {
		return nil, fmt.Errorf("connection: %w", err)
	}
	var first *leftover
	moved := in.moved
	if moved != nil {
		first = &leftover{b: moved.Unread}
		if moved.Handoff {
			moved = nil
		}
	}
	counters := l.w.counters
	counters.open.Add(1)
	counters.total.Add(1)
	if in.from == nil { // no master has sent it
		counters.accepted(l.index)
		made.sole.Store(true)
	}
	made.l, made.moved, made.first = l, moved, first
	return c, nil
}
