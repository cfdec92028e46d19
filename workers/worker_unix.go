//go:build unix

package workers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// Worker is the worker's end: it receives connections from the master and is
// told when to finish.
type Worker struct {
	id        ID
	nonce     string
	conn      *ipc.Conn
	counters  *counters
	stderr    *os.File
	crash     *os.File
	listeners []*Listener
	committed bool

	returns  *returns
	moved    atomic.Int64
	drain    chan DrainOrder // the latest order; closed never
	shared   chan []byte     // ditto
	orphaned chan struct{}   // the master is gone
	ready    bool
	mu       sync.Mutex
	ended    chan struct{} // the receiver has returned
}

// Marked says whether this process was started as a worker, and as which. It
// removes the marker from the environment and keeps the worker's descriptors
// from being inherited further. It must be called before main runs anything.
// From then on, and until Join, the process ends if its master is gone.
func Marked() (*Mark, bool) {
	value, ok := os.LookupEnv(MarkerEnv)
	if !ok {
		return nil, false
	}
	os.Unsetenv(MarkerEnv)
	m, err := parseMarker(value)
	// A marker alone means nothing: it may have come down from a grandparent.
	if err != nil || !ipc.IsSocket(workerIPC) {
		return nil, false
	}
	for fd := workerIPC; fd <= workerCrash; fd++ {
		syscall.CloseOnExec(fd)
	}
	syscall.Close(workerBinary) // it has done its service
	os.Args[0] = m.Argv0
	return &Mark{marker: m, arrived: forsaken(workerIPC)}, true
}

// Mark is what a worker knows of itself before it has met its master.
type Mark struct {
	marker  marker
	arrived func() // in Join
}

// ID returns the generation and slot.
func (m *Mark) ID() ID { return ID{Generation: m.marker.Generation, Slot: m.marker.Slot} }

// greetingTimeout bounds the wait for the master's first message.
const greetingTimeout = 10 * time.Second

// ErrNotWanted: the master has heard what this process is, and has no use for
// it. The process ends; that is no failure.
var ErrNotWanted = errors.New("the master does not want this worker")

// Join meets the master: it takes its greeting and introduces itself with what
// this binary and environment ask for.
func (m *Mark) Join(settings json.RawMessage) (*Worker, error) {
	setComm(m.marker.Argv0)
	m.arrived()
	conn, err := ipc.NewConn(os.NewFile(workerIPC, "master"))
	if err != nil {
		return nil, fmt.Errorf("socket to the master: %w", err)
	}
	page := os.NewFile(workerPage, "counters")
	counters, err := mapCounters(page)
	page.Close()
	if err != nil {
		return nil, err
	}
	w := &Worker{
		id: m.ID(), nonce: m.marker.Nonce, conn: conn, counters: counters,
		stderr: os.NewFile(workerStderr, "stderr"), crash: os.NewFile(workerCrash, "crash"),
		returns: newReturns(), shared: make(chan []byte, 1),
		drain: make(chan DrainOrder, 1), orphaned: make(chan struct{}), ended: make(chan struct{}),
	}
	_ = conn.SetReadDeadline(time.Now().Add(greetingTimeout))
	f, err := conn.Recv()
	if err != nil {
		return nil, fmt.Errorf("greeting of the master: %w", err)
	}
	g, err := decode[greeting](f.Payload)
	switch {
	case f.Type != msgHello || err != nil:
		return nil, fmt.Errorf("greeting of the master: %w", errProtocol)
	case g.Nonce != w.nonce:
		return nil, errors.New("greeting of the master: not the one that started this process")
	}
	// A master with an older protocol learns ours from the introduction, and
	// replaces itself first.
	w.committed = g.Committed
	for _, info := range g.Listeners {
		w.listeners = append(w.listeners, newListener(w, info, uint16(len(w.listeners))))
	}
	if err := setCrashOutput(w.crash); err != nil {
		return nil, err
	}
	intro := Intro{Version: ProtocolVersion, Nonce: w.nonce, PID: os.Getpid(), Settings: settings}
	if err := conn.Send(msgIntro, encode(intro), nil); errors.Is(err, unix.EPIPE) {
		return nil, ErrNotWanted
	} else if err != nil {
		return nil, fmt.Errorf("introduction to the master: %w", err)
	}
	// The application is built only in a process that is wanted.
	f, err = conn.Recv()
	if errors.Is(err, io.EOF) {
		return nil, ErrNotWanted
	}
	if err == nil && f.Type != msgWelcome {
		err = errProtocol
	}
	if err != nil {
		return nil, fmt.Errorf("welcome of the master: %w", err)
	}
	w.learn(f.Payload)
	_ = conn.SetReadDeadline(time.Time{})
	go w.receive()
	return w, nil
}

// Listeners returns the listeners, in the master's order. Accept on them takes
// the connections that the master sends.
func (w *Worker) Listeners() []*Listener { return w.listeners }

// Ready tells the master that connections are welcome, and puts the inherited
// stderr back in place of the pipe to the master.
func (w *Worker) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready {
		return nil
	}
	w.ready = true
	if err := dup2(int(w.stderr.Fd()), 2); err != nil {
		return fmt.Errorf("put stderr back: %w", err)
	}
	w.stderr.Close()
	return w.send(msgReady, nil)
}

// Failed tells the master why this worker will never be ready.
func (w *Worker) Failed(reason string) {
	const limit = ipc.MaxPayload / 8 // JSON makes six bytes of one, at most
	if len(reason) > limit {
		reason = reason[:limit] + " …"
	}
	_ = w.conn.Send(msgFailed, encode(failure{Reason: reason}), nil)
}

// Leave asks the master to drain this worker and to replace it.
func (w *Worker) Leave() error { return w.send(msgLeave, nil) }

// Drain delivers the master's order to finish. A later one replaces it.
func (w *Worker) Drain() <-chan DrainOrder { return w.drain }

// Finish makes Accept fail once all that the master has sent is accepted. It is
// called when the drain has begun, and never before: a server would take the
// end of its listener for a failure, and close its connections. The master
// sends no connection after its order.
func (w *Worker) Finish() {
	for _, l := range w.listeners {
		l.end()
	}
}

// Orphaned is closed when the master is gone.
func (w *Worker) Orphaned() <-chan struct{} { return w.orphaned }

// Serving says whether this worker's generation was committed.
func (w *Worker) Serving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.committed && w.ready
}

// Drained reports what became of the connections. The worker exits next.
func (w *Worker) Drained(r Drained) { _ = w.send(msgDrained, encode(r)) }

// Open returns the number of connections taken and not closed.
func (w *Worker) Open() int { return int(w.counters.open.Load()) }

// Taken returns the number of connections taken since the start.
func (w *Worker) Taken() int { return int(w.counters.total.Load()) }

// Ended receives when a connection has been closed; several may share one.
func (w *Worker) Ended() <-chan struct{} { return w.counters.ended }

// Close ends the connection to the master.
func (w *Worker) Close() error { return w.conn.Close() }

func (w *Worker) receive() {
	defer close(w.ended)
	defer close(w.orphaned)
	for {
		f, err := w.conn.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				fmt.Fprintf(os.Stderr, "baton: worker %s: %v\n", w.id, err)
			}
			return
		}
		switch f.Type {
		case msgConn:
			w.take(f)
			continue
		case msgMoved:
			w.takeMoved(f)
			continue
		case msgReceipt:
			w.returns.receipt(f.Payload)
		case msgKeep:
			w.returns.kept(f.Payload)
		case msgPing:
			_ = w.send(msgPong, nil)
		case msgCommit:
			w.mu.Lock()
			w.committed = true
			w.mu.Unlock()
		case msgShared:
			w.learn(f.Payload)
		case msgDrain:
			if o, err := decode[DrainOrder](f.Payload); err == nil {
				select {
				case <-w.drain: // not picked up yet: the newer one counts
				default:
				}
				w.drain <- o
			}
		}
		closeForeign(f.Files)
	}
}

// take queues connections at their listeners. Those that did not fit into this
// process are refused; the master has kept them.
func (w *Worker) take(f ipc.Frame) {
	n, err := connCount(f.Payload, len(f.Files)+f.Missing)
	if err != nil {
		closeForeign(f.Files)
		return
	}
	var refused []uint64
	for i := range n {
		id, listener := connEntry(f.Payload, i)
		switch {
		case i >= len(f.Files):
			refused = append(refused, id)
		case int(listener) >= len(w.listeners) || !w.listeners[listener].push(incoming{id: id, fd: f.Files[i]}):
			unix.Close(f.Files[i])
			refused = append(refused, id)
		}
	}
	if len(refused) > 0 {
		w.settle(msgNack, refused)
	}
}

// settle acknowledges or refuses connections.
func (w *Worker) settle(typ uint8, ids []uint64) {
	var buf [acceptBatch * idSize]byte
	b := buf[:0]
	for _, id := range ids {
		b = appendID(b, id)
	}
	// Should the master be gone, its copies are too, and the connection is
	// ours alone either way.
	_ = w.send(typ, b)
}

// sendRetries times sendPause is how long a message waits for kernel memory.
const (
	sendRetries = 200
	sendPause   = 10 * time.Millisecond
)

// send sends what must not get lost: a master that never hears of a connection
// being ours would keep it for ever.
func (w *Worker) send(typ uint8, payload []byte) error {
	for n := 0; ; n++ {
		err := w.conn.Send(typ, payload, nil)
		if err == nil || !errors.Is(err, ipc.ErrLoad) || n == sendRetries {
			return err
		}
		time.Sleep(sendPause)
	}
}
