//go:build unix

package workers

import (
	"errors"
	"math"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// Idle connections move: a draining worker returns them to the master, which
// gives them to the serving generation as it would new ones.
//
// A connection has one owner here, too. The worker keeps its descriptor, and
// does not touch the connection, until it has the master's receipt. The master
// sends that before it passes the connection on, so a worker that reads the end
// of the socket and has no receipt knows that nobody else has it.

// maxReturns is how many connections a worker may have on the way to its
// master, which has to hold a descriptor of each.
const maxReturns = 32

// returns are the connections that a worker is giving back.
type returns struct {
	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]chan bool
	slots   chan struct{}
}

func newReturns() *returns {
	return &returns{pending: map[uint64]chan bool{}, slots: make(chan struct{}, maxReturns)}
}

// answer tells who waits for it what became of a connection.
func (r *returns) answer(payload []byte, taken bool) {
	n, err := idCount(payload)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range n {
		if c := r.pending[idAt(payload, i)]; c != nil {
			c <- taken
			delete(r.pending, idAt(payload, i))
		}
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
	k := w.link.Load()
	select {
	case w.returns.slots <- struct{}{}:
		defer func() { <-w.returns.slots }()
	case <-k.lost:
		return false
	}
	done := make(chan bool, 1)
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

	raw, err := rc.SyscallConn()
	if err != nil {
		return false
	}
	payload := appendMoved(nil, id, l.index, m)
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = k.send(msgReturn, payload, []int{int(fd)}) }); err != nil || serr != nil {
		return false
	}
	taken := false
	select {
	case taken = <-done:
	case <-k.lost: // all that the master said has been read
		select {
		case taken = <-done:
		default:
		}
	}
	if taken {
		w.moved.Add(1)
		rc.release()
	}
	return taken
}

// Moved returns the number of connections that were given back.
func (w *Worker) Moved() int { return int(w.moved.Load()) }

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
		r.keep()
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

// keep tells the worker that the connection stays its own.
func (r returning) keep() {
	reply := appendID(nil, r.id)
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
	if d.serving == nil || d.ending {
		r.keep()
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
	for len(d.returning) > 0 && len(d.queue) < limit {
		r := d.returning[0]
		d.returning = d.returning[1:]
		r.w.returning--
		// The receipt goes first: see above. A dead worker needs none, for it
		// has no descriptor any more.
		if !r.w.gone && r.w.conn.TrySend(msgReceipt, appendID(nil, r.id), nil) != nil && !r.w.gone {
			r.keep()
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
		r.keep()
	}
	d.returning = nil
}

// sendMoved sends one connection that has been moved. Called locked.
func (w *window) sendMoved(h held, now time.Time) error {
	m := *h.moved
	m.Idle += now.Sub(h.at)
	w.payload = appendMoved(w.payload[:0], h.id, w.theirs(h.listener), m)
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
func (w *Worker) takeMoved(k *link, f ipc.Frame) {
	id, listener, m, err := parseMoved(f.Payload)
	switch {
	case err != nil:
		closeForeign(f.Files)
	case len(f.Files) != 1 || int(listener) >= len(w.listeners) || !w.listeners[listener].push(incoming{id: id, fd: f.Files[0], moved: &m, from: k}):
		for _, fd := range f.Files {
			unix.Close(fd)
		}
		k.settle(msgNack, []uint64{id})
	}
}
