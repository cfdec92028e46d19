//go:build unix

package workers

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/baton-go/baton/workers/dispatch"
	"github.com/baton-go/baton/workers/ipc"
)

// acceptBatch is how many connections are accepted, and sent in one message,
// at most: passing 16 descriptors in a message costs a fifth, each, of passing
// them singly.
const acceptBatch = 16

// held is a connection that the master owns: accepted, and not acknowledged by
// a worker yet. The master's descriptor stays open for that long.
type held struct {
	id       uint64
	fd       int
	listener uint16
	ledger   *ledger
	sent     time.Time // to its worker; zero in the queue
	moved    *Moved    // it comes from another worker
	token    int       // of that one, see there; 0: there is none
	at       time.Time // when it came from there
	consumed int64     // bytes that had been read from it by then
}

// dispatcher is the owner of connections between accept and acknowledgement.
//
// It sends connections, and not tokens to accept one from the shared listener,
// which was tried: the master counts what has arrived (tcpi_unacked of the
// listener and what the workers have accepted) and tells them in rotation to
// accept. That saves the passing of descriptors, keeps a strict order of counts,
// and takes a worker's unused tokens back after any delay, since nothing is lost
// with them. But the CPU time of a connection was the same, within the noise,
// for a token still wakes the master and the worker; policies that look at the
// client's address cannot choose before the accept; which of two workers with a
// token gets which connection is left to chance; and there is no listener's
// tcpi_unacked without Linux and TCP.
//
// It is guarded by a lock instead of a goroutine of its own, unlike the pool:
// a lock costs a fast path of three system calls nothing, a switch to another
// goroutine costs as much as one of them. Nothing blocks under the lock; sends
// do not wait, and descriptors are closed after it.
type dispatcher struct {
	mu        sync.Mutex
	choice    choice
	targets   []*window   // of the serving generation, by slot
	queue     []held      // waiting for a target: redispatched, or left over
	serving   *ledger     // of the serving generation
	reserved  int         // room promised to accept loops
	closed    bool        // no room any more: frozen or stopped
	ending    bool        // workers keep what they have
	adopts    []bool      // per listener: the serving generation takes what is handed off
	returning []returning // offered by workers that drain, in the order they came
	impatient bool        // a timer of losePatience runs
	held      int         // no room for a moment: somebody else needs descriptors
	nextID    uint64
	room      chan struct{} // closed when there may be room again
	waiting   bool          // somebody waits for that
	accepted  []uint64      // per listener
	quiet     quiet
}

// window is what one worker holds unacknowledged.
type window struct {
	d       *dispatcher
	conn    *ipc.Conn
	ledger  *ledger
	slot    int
	numbers []uint16 // that the worker knows our listeners by; nil: by ours
	size    int
	unacked []held   // oldest first
	batch   []held   // assigned in this round, not sent yet
	closing []int    // acknowledged: the master's descriptors to close
	page    *os.File // its counters; may be nil
	weight  int

	stalled    bool      // does not answer
	blocked    time.Time // until then it gets nothing: its socket or its descriptors are full
	backoff    time.Duration
	gone       bool   // dead or dying: nothing can be sent
	returning  int    // connections it offers to give back
	unanswered int    // that it gave back and can have no answer to
	brought    uint64 // that were taken back from it
	fostered   bool   // it has accepted for itself: nobody knows how many it got

	dispatched uint64
	payload    []byte
	fds        []int
}

const (
	minBlocked = 10 * time.Millisecond
	maxBlocked = time.Second
)

func newDispatcher(p dispatch.Policy) *dispatcher {
	return &dispatcher{choice: newChoice(p), nextID: 1, room: make(chan struct{}), quiet: newQuiet()}
}

func (d *dispatcher) newWindow(c *ipc.Conn, slot int, l *ledger) *window {
	return &window{d: d, conn: c, slot: slot, ledger: l, size: DefaultWindow}
}

// free is the room a policy may count on.
func (w *window) free(now time.Time) int {
	if w.gone || w.stalled || now.Before(w.blocked) {
		return 0
	}
	return max(0, w.size-len(w.unacked)-len(w.batch))
}

// serve makes ws the targets, in one step. l is their generation's ledger,
// adopts says from which listeners it takes what is handed off, and r whom its
// connections go to.
func (d *dispatcher) serve(ws []*window, l *ledger, adopts []bool, r rule) {
	d.mu.Lock()
	d.targets = slices.Clone(ws)
	slices.SortFunc(d.targets, func(a, b *window) int { return a.slot - b.slot })
	d.follow(r)
	d.serving, d.adopts = l, adopts
	lost := d.refuseLost()
	d.flush()
	d.mu.Unlock()
	closeForeign(lost)
}

// Reserve implements listener.Gate: room that is promised before a connection
// is accepted, so that what cannot be placed stays in the kernel's queue.
func (d *dispatcher) Reserve(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = min(n, d.roomLocked())
	d.reserved += n
	return n
}

func (d *dispatcher) roomLocked() int {
	if d.closed || d.held > 0 || len(d.queue) > 0 {
		return 0
	}
	return max(d.spare(time.Now()), 0)
}

// Refund implements listener.Gate.
func (d *dispatcher) Refund(n int) {
	d.mu.Lock()
	d.reserved -= n
	d.useRoom()
	d.mu.Unlock()
}

// take places connections just accepted, for which room was reserved.
func (d *dispatcher) take(fds []int, listener int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved -= len(fds)
	d.accepted[listener] += uint64(len(fds))
	for _, fd := range fds {
		d.serving.accepted++
		d.queue = append(d.queue, held{id: d.nextID, fd: fd, listener: uint16(listener), ledger: d.serving})
		d.nextID++
	}
	d.flush()
}

// flush sends what is queued to whom the policy picks, as far as windows go.
func (d *dispatcher) flush() {
	now := time.Now()
	if len(d.queue) > 0 {
		d.quiet.stir()
	}
	for d.admit(); len(d.queue) > 0 && len(d.targets) > 0 && !d.closed; d.admit() {
		d.look(now)
		assigned := 0
		for i := range d.queue {
			w := d.choose(&d.queue[i], now)
			if w == nil {
				break // all full
			}
			w.batch = append(w.batch, d.queue[i])
			assigned++
		}
		if assigned == 0 {
			break
		}
		n := copy(d.queue, d.queue[assigned:])
		clear(d.queue[n:])
		d.queue = d.queue[:n]
		for _, w := range d.targets {
			for len(w.batch) > 0 {
				w.sendBatch(now)
			}
		}
	}
	if len(d.queue) == 0 {
		d.wake()
	}
}

// sendBatch sends up to acceptBatch of w.batch in one message. Called locked.
func (w *window) sendBatch(now time.Time) {
	d := w.d
	batch := w.batch[:min(len(w.batch), acceptBatch)]
	w.payload, w.fds = w.payload[:0], w.fds[:0]
	for i, h := range batch {
		if h.moved != nil {
			batch = batch[:i]
			break
		}
		w.payload = appendConn(w.payload, h.id, w.number(h.listener))
		w.fds = append(w.fds, h.fd)
	}
	var err error
	if len(batch) > 0 {
		err = w.conn.TrySend(msgConn, w.payload, w.fds)
	} else {
		batch = w.batch[:1]
		err = w.sendMoved(batch[0], now)
	}
	if err != nil {
		if errors.Is(err, ipc.ErrWouldBlock) || errors.Is(err, ipc.ErrLoad) {
			w.block(now)
		} else {
			w.gone = true // its exit is noticed elsewhere
		}
		d.queue = append(d.queue, w.batch...)
		d.oldestFirst()
		w.batch = w.batch[:0]
		return
	}
	for _, h := range batch {
		if h.ledger != w.ledger {
			h.ledger.redispatched++
			w.ledger.accepted++
			h.ledger = w.ledger
		}
		h.sent = now
		w.unacked = append(w.unacked, h)
	}
	w.dispatched += uint64(len(batch))
	n := copy(w.batch, w.batch[len(batch):])
	w.batch = w.batch[:n]
}

// block keeps connections from w for a while, longer each time.
func (w *window) block(now time.Time) {
	w.backoff = min(max(2*w.backoff, minBlocked), maxBlocked)
	w.blocked = now.Add(w.backoff)
	time.AfterFunc(w.backoff, w.d.retry)
}

// retry looks again whether what is queued can be sent.
func (d *dispatcher) retry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.useRoom()
}

// ack settles connections: they are the worker's now. An id that the worker
// does not hold is a protocol error.
func (d *dispatcher) ack(w *window, payload []byte) error {
	n, err := idCount(payload)
	if err != nil {
		return err
	}
	d.mu.Lock()
	for i := range n {
		h, ok := w.remove(idAt(payload, i))
		if !ok {
			err = errProtocol
			break
		}
		h.ledger.acknowledged++
		w.closing = h.files(w.closing)
	}
	w.backoff = 0
	d.useRoom()
	d.mu.Unlock()
	// Only the reader of this worker comes here, so closing has one user.
	for _, fd := range w.closing {
		closeShared(fd)
	}
	w.closing = w.closing[:0]
	return err
}

// nack takes connections back that a worker has no room for.
func (d *dispatcher) nack(w *window, payload []byte) error {
	n, err := idCount(payload)
	if err != nil {
		return err
	}
	var removed []int
	d.mu.Lock()
	w.block(time.Now())
	for i := range n {
		h, ok := w.remove(idAt(payload, i))
		if !ok {
			err = errProtocol
			break
		}
		if !d.requeue(h) {
			removed = h.files(removed)
		}
	}
	d.oldestFirst()
	d.flush()
	d.mu.Unlock()
	closeForeign(removed)
	return err
}

// requeue puts h back into the queue. False: it is refused, and the caller
// closes it once the lock is free.
func (d *dispatcher) requeue(h held) bool {
	if why := d.lost(h); why != "" {
		h.ledger.refuse(why)
		return false
	}
	h.ledger.redispatched++
	h.ledger.accepted++
	h.sent = time.Time{}
	d.queue = append(d.queue, h)
	return true
}

// oldestFirst orders the queue by age: what comes back has waited longest.
func (d *dispatcher) oldestFirst() {
	slices.SortFunc(d.queue, func(a, b held) int { return cmp.Compare(a.id, b.id) })
}

func (w *window) remove(id uint64) (held, bool) {
	for i, h := range w.unacked {
		if h.id == id {
			w.unacked = slices.Delete(w.unacked, i, i+1)
			return h, true
		}
	}
	return held{}, false
}

// abandon is called when the worker is dead and its last message has been
// read: what it never acknowledged goes to others. cut of its acknowledged
// connections died with it.
func (d *dispatcher) abandon(w *window, cut int) (requeued int) {
	d.mu.Lock()
	var refused []int
	w.gone = true
	w.ledger.cut += uint64(cut)
	for _, h := range w.unacked {
		if consumed(h.fd) > h.consumed {
			// It read before it acknowledged. Whoever got this connection now
			// would see half a request.
			h.ledger.refuse(refusedTouched)
			refused = h.files(refused)
			continue
		}
		if !d.requeue(h) {
			refused = h.files(refused)
			continue
		}
		requeued++
	}
	w.unacked = nil
	d.oldestFirst()
	d.flush()
	d.mu.Unlock()
	closeForeign(refused)
	return requeued
}

// stall takes w out of the rotation, or back.
func (d *dispatcher) stall(w *window, stalled bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.stalled = stalled
	if !stalled {
		d.flush()
	}
}

// age is how long the oldest unacknowledged connection of w has waited.
func (d *dispatcher) age(w *window, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(w.unacked) == 0 {
		return 0
	}
	return now.Sub(w.unacked[0].sent)
}

// touchAges forgets how long connections have waited: the clock that measured
// it stood still.
func (d *dispatcher) touchAges(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.targets {
		for i := range w.unacked {
			w.unacked[i].sent = now
		}
	}
}

// wait returns a channel that is closed when there may be room again.
func (d *dispatcher) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = true
	room := d.room
	if d.roomLocked() > 0 {
		d.wake()
	}
	return room
}

// wake tells waiting accept loops. Called locked.
func (d *dispatcher) wake() {
	if d.waiting {
		d.waiting = false
		close(d.room)
		d.room = make(chan struct{})
	}
}

// close ends the rotation: nothing is accepted or sent any more.
func (d *dispatcher) close(closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = closed
	if closed {
		d.referAll(keptLate) // to the next master, or to this one again
	}
	d.flush()
}

// hold makes accept loops wait, or go on.
func (d *dispatcher) hold(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if on {
		d.held++
		return
	}
	d.held--
	d.wake()
}

// settled waits until nothing is queued and workers have acknowledged all that
// they were sent, or ctx ends. Once they drain, what one of them refuses, or
// leaves behind when it dies, has nobody to go to.
func (d *dispatcher) settled(ctx context.Context) {
	for {
		d.mu.Lock()
		left, room := len(d.queue), d.room
		for _, w := range d.targets {
			left += len(w.unacked)
		}
		d.waiting = true
		d.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-room:
		case <-ctx.Done():
			return
		}
	}
}

// refuseAll closes what is still queued when the service ends.
func (d *dispatcher) refuseAll() int {
	d.mu.Lock()
	queue := d.queue
	d.queue = nil
	for _, h := range queue {
		h.ledger.refuse(refusedStopped)
	}
	d.mu.Unlock()
	fds := make([]int, 0, len(queue))
	for _, h := range queue {
		fds = h.files(fds)
	}
	closeForeign(fds) // a worker may have had them before
	return len(queue)
}

// pending counts the connections held for l. Called locked.
func (d *dispatcher) pending(l *ledger, windows []*window) int {
	n := 0
	for _, h := range d.queue {
		if h.ledger == l {
			n++
		}
	}
	for _, w := range windows {
		n += len(w.unacked)
	}
	return n
}
