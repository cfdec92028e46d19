//go:build unix

package workers

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// Idle connections move: a draining worker returns them to the master, which
// gives them to the serving generation as it would new ones. What an application
// hands off goes the same way.
//
// A connection has one owner here, too. The worker keeps its descriptor, and
// does not touch the connection, until another worker has claimed it; see token.
// The master sends a receipt before it passes the connection on, so a worker that
// reads the end of the socket and has no receipt knows that nobody else has it.

// maxReturns is how many connections a worker may have on the way to its
// master, which has to hold a descriptor of each.
const maxReturns = 32

const _ = uint(ipc.MaxPayload - movedSize - MaxUnread - MaxState) // a message has room for it

// returns are the connections that a worker is giving back.
type returns struct {
	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]chan error // nil: taken
	slots   chan struct{}
}

func newReturns() *returns {
	return &returns{pending: map[uint64]chan error{}, slots: make(chan struct{}, maxReturns)}
}

// receipt tells who waits for it that connections have been taken.
func (r *returns) receipt(payload []byte) {
	if n, err := idCount(payload); err == nil {
		for i := range n {
			r.answer(idAt(payload, i), nil)
		}
	}
}

// kept tells who waits for it why a connection has not.
func (r *returns) kept(payload []byte) {
	if len(payload) == idSize+1 {
		r.answer(idAt(payload, 0), keptFor(payload[idSize]))
	}
}

func (r *returns) answer(id uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.pending[id]; c != nil {
		c <- err
		delete(r.pending, id)
	}
}

// returnable is a connection that a worker got from its master.
type returnable interface {
	net.Conn
	syscall.Conn
	release()
}

// Return gives a connection back, for another worker to serve. Nobody may be
// using c. It waits for the master's answer; unless that is Taken, c is still
// this worker's, and has to be served on.
func (w *Worker) Return(l *Listener, c net.Conn, m Moved) Reception {
	rc, ok := c.(returnable)
	if !ok || len(m.Unread) > MaxUnread {
		return Kept
	}
	switch err := w.offer(rc, l.index, m, nil); {
	case err == nil:
		w.moved.Add(1)
		rc.release()
		return Taken
	case errors.Is(err, errMasterGone) && w.mayBeAdopted():
		return NotNow
	case errors.Is(err, ErrNobody), errors.Is(err, ErrNotAdopted):
		return Kept
	}
	return NotNow // what is wrong with one connection is not so with all
}

// offer sends a connection to the master and waits for the answer: nil if it is
// the master's now. Once the master is gone, or late has been received from
// before it has been sent, the connection stays here. A master that is well
// answers at once, or as soon as it has waited for room; only it can tell, so
// while it stands still there is no answer.
func (w *Worker) offer(c returnable, listener uint16, m Moved, late <-chan time.Time) error {
	k := w.link.Load()
	select {
	case w.returns.slots <- struct{}{}:
		defer func() { <-w.returns.slots }()
	case <-late:
		return errLate
	case <-k.lost:
		return errMasterGone
	}
	done := make(chan error, 1)
	w.returns.mu.Lock()
	w.returns.nextID++
	id := w.returns.nextID
	w.returns.pending[id] = done
	w.returns.mu.Unlock()
	defer func() {
		w.returns.mu.Lock()
		delete(w.returns.pending, id)
		w.returns.mu.Unlock()
	}()

	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	mine, theirs, err := newToken()
	if err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	defer mine.Close()
	payload := appendMoved(nil, id, listener, m)
	var serr error
	err = raw.Control(func(fd uintptr) { serr = k.conn.Send(msgReturn, payload, []int{int(fd), theirs}) })
	unix.Close(theirs)
	switch {
	case errors.Is(serr, unix.EPIPE), errors.Is(serr, unix.ECONNRESET):
		return fmt.Errorf("%w: %w", errMasterGone, serr)
	case serr != nil:
		return fmt.Errorf("%w: %w", errBusy, serr)
	case err != nil:
		return err
	}
	select {
	case err = <-done:
	case <-k.lost: // all that the master said has been read
		select {
		case err = <-done:
		default:
			return errMasterGone
		}
	}
	if err == nil && !claimed(mine) {
		return errMasterGone // or it had nobody to pass it on to
	}
	return err
}

// Moved returns the number of connections that were given back.
func (w *Worker) Moved() int { return int(w.moved.Load()) }

// returned takes a connection back from c's worker, on the reader's goroutine.
func (p *Pool) returned(c *child, f ipc.Frame) error {
	fds := append([]int(nil), f.Files...)
	id, listener, m, err := parseMoved(f.Payload)
	if n := len(fds) + f.Missing; err == nil && (n < 1 || n > 2 || len(fds) > 0 && !isConnection(fds[0]) || len(fds) > 1 && !isToken(fds[1])) {
		err = errProtocol
	}
	at, known := p.listenerOf(c, listener)
	if err == nil && listener >= uint16(max(len(c.keys), len(p.acceptors))) {
		err = errProtocol
	}
	if err == nil {
		r := returning{w: c.window, id: id, fd: -1, listener: at, moved: m, since: time.Now()}
		if f.Missing > 0 {
			c.discard(fds) // what has come is of no use alone
			fds = nil
		}
		if len(fds) > 0 {
			r.fd = fds[0]
		}
		if len(fds) > 1 {
			r.token = fds[1]
		}
		if !known {
			r.listener = noListener
		}
		err = p.d.giveBack(r)
	}
	if err != nil {
		c.discard(fds)
	}
	return err
}

// listenerOf translates a worker's number of a listener into ours.
func (p *Pool) listenerOf(c *child, n uint16) (uint16, bool) {
	if c.keys == nil {
		return n, int(n) < len(p.acceptors)
	}
	if int(n) >= len(c.keys) {
		return 0, false
	}
	at, ok := p.byKey[c.keys[n]]
	return uint16(at), ok
}

// numbers is the reverse of listenerOf, for a worker with these listeners.
func (p *Pool) numbers(keys []string) []uint16 {
	n := make([]uint16, len(p.acceptors))
	for i, a := range p.acceptors {
		n[i] = noListener
		if at := slices.Index(keys, a.key); at >= 0 {
			n[i] = uint16(at)
		}
	}
	return n
}

// number is what the worker calls a listener of ours. One that an earlier master
// started may have another order, and none of some, which it refuses.
func (w *window) number(listener uint16) uint16 {
	if w.numbers == nil {
		return listener
	}
	return w.numbers[listener]
}

// returning is a connection that a worker wants to give back, and that is not
// the master's yet.
type returning struct {
	w        *window
	id       uint64 // the worker's
	fd       int    // -1: there was none left for it
	token    int    // see there; 0: there is none
	listener uint16 // ours, or noListener
	moved    Moved
	since    time.Time
}

// returnPatience is how long a connection waits for room with nobody serving
// it. Then its worker serves it on, and offers it again some time later.
const returnPatience = 100 * time.Millisecond

// takes says whether the master can take a connection that is offered to it, or
// why not. Called locked.
func (d *dispatcher) takes(r returning) (why uint8, ok bool) {
	switch {
	case d.ending:
		return keptUnserved, false
	case r.listener == noListener, r.moved.Handoff && d.serving != nil && !d.adopted(r.listener):
		return keptUnadopted, false
	case r.moved.Handoff && d.serving != nil && len(d.targets) == 0:
		return keptUnserved, false // its worker can do better than to wait
	case d.closed || r.fd < 0:
		return keptLate, false
	}
	return 0, true
}

// giveBack takes a connection that a worker returns, now or once there is room.
// A worker that returns more at a time than it may breaks the protocol, as does
// one that does not read the answers, and one that returns more than it ever
// got. It is counted with some latitude: it may have read an answer before we
// know that it was sent.
func (d *dispatcher) giveBack(r returning) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.w.returning+r.w.unanswered >= 2*maxReturns || r.w.brought+uint64(r.w.returning) >= r.w.dispatched && !r.w.fostered {
		return errProtocol
	}
	r.w.returning++
	if why, ok := d.takes(r); !ok {
		d.refer(r, why)
		return nil
	}
	d.returning = append(d.returning, r)
	d.flush()
	if len(d.returning) > 0 && !d.impatient {
		d.impatient = true
		time.AfterFunc(returnPatience, d.losePatience)
	}
	return nil
}

// losePatience refers what has waited for too long to its worker.
func (d *dispatcher) losePatience() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.impatient = false
	d.flush()
	now := time.Now()
	for len(d.returning) > 0 {
		r := d.returning[0]
		if left := returnPatience - now.Sub(r.since); left > 0 {
			d.impatient = true
			time.AfterFunc(left, d.losePatience)
			return
		}
		d.returning = d.returning[1:]
		d.refer(r, keptLate)
	}
}

// spare is the room of the targets that nobody has been promised. Called locked.
func (d *dispatcher) spare(now time.Time) int {
	free := -d.reserved - len(d.queue)
	for _, w := range d.targets {
		free += w.free(now)
	}
	return free
}

// useRoom gives room that there may be now to what waits for some, here or in
// the kernel's queues. Called locked.
func (d *dispatcher) useRoom() {
	if len(d.queue) > 0 || len(d.returning) > 0 {
		d.flush()
	} else {
		d.wake()
	}
}

// admit makes connections that are being returned the master's, as far as there
// is room for them: what waited here for a worker that has some would be served
// by nobody meanwhile. Called locked.
func (d *dispatcher) admit() {
	for now := time.Now(); len(d.returning) > 0 && !d.closed && d.spare(now) > 0; {
		r := d.returning[0]
		d.returning = d.returning[1:]
		if why, ok := d.takes(r); !ok { // any more
			d.refer(r, why)
			continue
		}
		// The receipt goes first: see above.
		if r.w.conn.TrySend(msgReceipt, appendID(nil, r.id), nil) != nil {
			d.refer(r, keptLate)
			continue
		}
		r.w.returning--
		d.takeBack(r)
	}
	if len(d.returning) == 0 {
		d.returning = nil
	}
}

// takeBack queues a connection that was returned. Called locked.
func (d *dispatcher) takeBack(r returning) {
	l := d.serving
	if l == nil {
		l = r.w.ledger // nobody serves yet, who will is told to
	}
	l.accepted++
	r.w.brought++
	d.queue = append(d.queue, held{
		id: d.nextID, fd: r.fd, token: r.token, listener: r.listener, ledger: l,
		moved: &r.moved, at: time.Now(), consumed: consumed(r.fd),
	})
	d.nextID++
}

// refer answers that the connection stays its worker's, and why. The worker has
// one under way until it has the answer. A dead one keeps nothing: it is queued,
// with room or without. One that only seems dead, since it has shut its socket,
// gets no further by that than by not reading. Called locked.
func (d *dispatcher) refer(r returning, why uint8) {
	reply := append(appendID(nil, r.id), why)
	err := r.w.conn.TrySend(msgKeep, reply, nil)
	switch {
	case errors.Is(err, ipc.ErrWouldBlock) || errors.Is(err, ipc.ErrLoad):
		go func() {
			for errors.Is(r.w.conn.Send(msgKeep, reply, nil), ipc.ErrLoad) {
				time.Sleep(sendPause)
			}
			d.mu.Lock()
			r.w.returning--
			d.mu.Unlock()
		}()
	case err != nil && why == keptLate && r.fd >= 0:
		r.w.returning--
		r.w.unanswered++
		d.takeBack(r)
		return
	default:
		r.w.returning--
	}
	if r.fd >= 0 {
		go closeForeign(held{fd: r.fd, token: r.token}.files(nil))
	}
}

// referAll refers all that are being returned. Called locked.
func (d *dispatcher) referAll(why uint8) {
	for _, r := range d.returning {
		d.refer(r, why)
	}
	d.returning = nil
}

// noReturns makes workers keep what they have: the service ends.
func (d *dispatcher) noReturns() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending = true
	d.referAll(keptUnserved)
}

// sendMoved sends one connection that has been moved. Called locked.
func (w *window) sendMoved(h held, now time.Time) error {
	m := *h.moved
	m.Idle += max(now.Sub(h.at), 0) // it may have come in this very round
	w.payload = appendMoved(w.payload[:0], h.id, w.number(h.listener), m)
	w.fds = h.files(w.fds[:0])
	return w.conn.TrySend(msgMoved, w.payload, w.fds)
}

// isConnection says whether fd is a stream socket that does not listen: the
// only thing that a worker has to give back.
func isConnection(fd int) bool {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_STREAM {
		return false
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens != 0 {
		return false
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch sa.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6, *unix.SockaddrUnix:
		return true
	}
	return false
}

// takeMoved queues a connection that comes from another worker.
func (w *Worker) takeMoved(k *link, f ipc.Frame) {
	id, listener, m, err := parseMoved(f.Payload)
	switch {
	case err != nil:
		closeForeign(f.Files)
		return
	case f.Missing == 0 && len(f.Files) > 0 && len(f.Files) <= 2 && int(listener) < len(w.listeners):
		in := incoming{id: id, fd: f.Files[0], moved: &m, from: k}
		if len(f.Files) == 2 {
			in.token = f.Files[1]
		}
		if m.Handoff {
			w.listeners[listener].adopt(in)
			return
		}
		if w.listeners[listener].push(in) {
			return
		}
	}
	closeAllFDs(f.Files)
	k.settle(msgNack, []uint64{id})
}
