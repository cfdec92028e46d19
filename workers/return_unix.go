//go:build unix

package workers

import (
	"errors"
	"fmt"
	"math"
	"net"
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
// does not touch the connection, until it has the master's receipt. The master
// sends that before it passes the connection on, so a worker that reads the end
// of the socket and has no receipt knows that nobody else has it.

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
// using c. It waits for the master's receipt; false means that the connection
// is still this worker's, and has to be served on.
func (w *Worker) Return(l *Listener, c net.Conn, m Moved) bool {
	rc, ok := c.(returnable)
	if !ok || len(m.Unread) > MaxUnread {
		return false
	}
	if w.offer(rc, l.index, m, nil) != nil {
		return false
	}
	w.moved.Add(1)
	rc.release()
	return true
}

// offer sends a connection to the master and waits for the answer: nil if it is
// the master's now. Once late has been received from, or the master is gone, the
// connection stays here, unless it has been taken already. That only the master
// can tell, so while it stands still there is no answer.
func (w *Worker) offer(c returnable, listener uint16, m Moved, late <-chan time.Time) error {
	select {
	case w.returns.slots <- struct{}{}:
		defer func() { <-w.returns.slots }()
	case <-late:
		return errLate
	case <-w.orphaned:
		return ErrNobody
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
	payload := appendMoved(nil, id, listener, m)
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = w.sendFile(msgReturn, payload, int(fd)) }); err != nil {
		return err
	}
	if serr != nil {
		return fmt.Errorf("%w: %w", ErrNobody, serr)
	}
	for {
		select {
		case err := <-done:
			return err
		case <-late:
			late = nil
			_ = w.send(msgWithdraw, appendID(nil, id))
		case <-w.orphaned: // all that the master said has been read
			select {
			case err := <-done:
				return err
			default:
				return ErrNobody
			}
		}
	}
}

// Moved returns the number of connections that were given back.
func (w *Worker) Moved() int { return int(w.moved.Load()) }

func (w *Worker) sendFile(typ uint8, payload []byte, fd int) error {
	for n := 0; ; n++ {
		err := w.conn.Send(typ, payload, []int{fd})
		if err == nil || !errors.Is(err, ipc.ErrLoad) || n == sendRetries {
			return err
		}
		time.Sleep(sendPause)
	}
}

// returned takes a connection back from c's worker, on the reader's goroutine.
func (p *Pool) returned(c *child, f ipc.Frame) error {
	fds := append([]int(nil), f.Files...)
	id, listener, m, err := parseMoved(f.Payload)
	if err == nil && (len(fds) != 1 || !isConnection(fds[0])) {
		err = errProtocol
	}
	at, known := p.listenerOf(c, listener)
	if err == nil && listener >= uint16(max(len(c.keys), len(p.acceptors))) {
		err = errProtocol
	}
	if err != nil {
		go closeForeign(fds)
		return err
	}
	r := returning{w: c.window, id: id, fd: fds[0], listener: at, moved: m}
	if !known {
		r.keep(keptUnadopted) // by a release that has no such listener
		return nil
	}
	if err := p.d.giveBack(r); err != nil {
		go closeForeign(fds)
		return err
	}
	return nil
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

// returning is a connection that a worker wants to give back, and that is not
// the master's yet.
type returning struct {
	w        *window
	id       uint64 // the worker's
	fd       int
	listener uint16
	moved    Moved
}

// keep tells the worker that the connection stays its own, and why.
func (r returning) keep(why uint8) {
	reply := append(appendID(nil, r.id), why)
	if err := r.w.conn.TrySend(msgKeep, reply, nil); errors.Is(err, ipc.ErrWouldBlock) || errors.Is(err, ipc.ErrLoad) {
		go func() { _ = r.w.conn.Send(msgKeep, reply, nil) }()
	}
	go closeForeign([]int{r.fd})
}

// admitBelow is the length of the queue below which connections are taken back.
// Above it they wait at their workers, which serve them until then or hold few.
const admitBelow = 64

// giveBack takes a connection that a worker returns, now or once there is room.
// A worker that returns more at a time than it may breaks the protocol.
func (d *dispatcher) giveBack(r returning) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if why, ok := d.takes(r); !ok {
		r.keep(why)
		return nil
	}
	if r.w.returning >= maxReturns {
		return errProtocol
	}
	r.w.returning++
	d.returning = append(d.returning, r)
	d.flush()
	return nil
}

// admit makes connections that are being returned the master's, while its queue
// is shorter than admitBelow; all of them in a freeze, for who describes the
// queue must find them in it. Called locked.
func (d *dispatcher) admit() {
	limit := admitBelow
	if d.closed {
		limit = math.MaxInt
	}
	for len(d.returning) > 0 && len(d.queue) < limit && d.serving != nil {
		r := d.returning[0]
		d.returning = d.returning[1:]
		r.w.returning--
		if why, ok := d.takes(r); !ok { // any more
			r.keep(why)
			continue
		}
		// The receipt goes first: see above. A dead worker needs none, for it
		// has no descriptor any more.
		if !r.w.gone && r.w.conn.TrySend(msgReceipt, appendID(nil, r.id), nil) != nil && !r.w.gone {
			r.keep(keptLate)
			continue
		}
		d.serving.accepted++
		d.queue = append(d.queue, held{
			id: d.nextID, fd: r.fd, listener: r.listener, ledger: d.serving,
			moved: &r.moved, at: time.Now(), consumed: consumed(r.fd),
		})
		d.nextID++
	}
	if len(d.returning) == 0 {
		d.returning = nil
	}
}

// noReturns makes workers keep what they have: the service ends.
func (d *dispatcher) noReturns() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending = true
	for _, r := range d.returning {
		r.w.returning--
		r.keep(keptUnserved)
	}
	d.returning = nil
}

// sendMoved sends one connection that has been moved. Called locked.
func (w *window) sendMoved(h held, now time.Time) error {
	m := *h.moved
	m.Idle += now.Sub(h.at)
	w.payload = appendMoved(w.payload[:0], h.id, h.listener, m)
	w.fds = append(w.fds[:0], h.fd)
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
func (w *Worker) takeMoved(f ipc.Frame) {
	id, listener, m, err := parseMoved(f.Payload)
	switch {
	case err != nil:
		closeForeign(f.Files)
	case m.Handoff && len(f.Files) == 1 && int(listener) < len(w.listeners):
		w.listeners[listener].adopt(incoming{id: id, fd: f.Files[0], moved: &m})
	case len(f.Files) != 1 || int(listener) >= len(w.listeners) || !w.listeners[listener].push(incoming{id: id, fd: f.Files[0], moved: &m}):
		for _, fd := range f.Files {
			unix.Close(fd)
		}
		w.settle(msgNack, []uint64{id})
	}
}
