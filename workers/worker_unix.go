//go:build unix

package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	link      atomic.Pointer[link]
	counters  *counters
	stderr    *os.File
	crash     *os.File
	listeners []*Listener
	committed bool
	estate    estate

	returns  *returns
	moved    atomic.Int64
	drain    chan DrainOrder // the latest order; closed never
	shared   chan []byte     // ditto
	orphaned chan struct{}   // the master is gone, and none is waited for
	ready    bool
	mu       sync.Mutex

	forsakenOnce sync.Once
	ctx          context.Context // until Close
	end          context.CancelFunc
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
	w := newWorker(m.ID(), m.marker.Nonce, conn, counters)
	w.stderr, w.crash = os.NewFile(workerStderr, "stderr"), os.NewFile(workerCrash, "crash")
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
	// Whether we can be its worker decides the master, by our introduction.
	w.committed = g.Committed
	for _, info := range g.Listeners {
		w.listeners = append(w.listeners, newListener(w, info, uint16(len(w.listeners))))
	}
	if err := setCrashOutput(w.crash); err != nil {
		return nil, err
	}
	intro := Intro{Protocol: protocol, Nonce: w.nonce, PID: os.Getpid(), Settings: settings}
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
	go w.receive(w.link.Load())
	return w, nil
}

func newWorker(id ID, nonce string, conn *ipc.Conn, counters *counters) *Worker {
	w := &Worker{
		id: id, nonce: nonce, counters: counters, returns: newReturns(),
		shared: make(chan []byte, 1), drain: make(chan DrainOrder, 1), orphaned: make(chan struct{}),
	}
	w.ctx, w.end = context.WithCancel(context.Background())
	w.link.Store(newLink(conn))
	return w
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
	_ = w.link.Load().conn.Send(msgFailed, encode(failure{Reason: reason}), nil)
}

// Leave asks the master to drain this worker and to replace it. Should there be
// none, that is an error; should it die before it has, Orphaned is closed.
func (w *Worker) Leave() error {
	w.estate.mu.Lock()
	w.estate.final = true
	w.estate.mu.Unlock()
	return w.send(msgLeave, nil)
}

// Drain delivers the master's order to finish. A later one replaces it.
func (w *Worker) Drain() <-chan DrainOrder { return w.drain }

// Finish makes Accept fail once all that the master has sent is accepted. It is
// called when the drain has begun, and never before: a server would take the
// end of its listener for a failure, and close its connections. The master
// sends no connection after its order.
func (w *Worker) Finish() {
	w.estate.mu.Lock()
	w.estate.giveUp(w.estate.bond != Bonded)
	w.estate.mu.Unlock()
	for _, l := range w.listeners {
		l.end()
	}
}

// Orphaned is closed when the master is gone, and this worker does not wait for
// another one, or not any more: it was not trusted to live on, or for no longer.
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
func (w *Worker) Close() error {
	w.end()
	w.renounce(false)
	w.estate.forget()
	return w.link.Load().conn.Close()
}

// hear takes one message of the master at the other end of k.
func (w *Worker) hear(k *link, f ipc.Frame) {
	switch f.Type {
	case msgConn:
		w.take(k, f)
		return
	case msgMoved:
		w.takeMoved(k, f)
		return
	case msgTrust:
		w.entrusted(f)
		return
	case msgLicence:
		w.licensed(k, f)
		return
	case msgReceipt:
		w.returns.receipt(f.Payload)
	case msgKeep:
		w.returns.kept(f.Payload)
	case msgShared:
		w.learn(f.Payload)
	case msgPing:
		_ = k.send(msgPong, nil, nil)
	case msgCommit:
		w.mu.Lock()
		w.committed = true
		w.mu.Unlock()
		w.hush(k)
	case msgUnlicence:
		w.unlicensed(k, f.Payload)
	case msgStopping:
		w.bequest()
	case msgDrain:
		w.renounce(false)
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

// take queues connections at their listeners. Those that did not fit into this
// process are refused; the master has kept them.
func (w *Worker) take(k *link, f ipc.Frame) {
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
		case int(listener) >= len(w.listeners) || !w.listeners[listener].push(incoming{id: id, fd: f.Files[i], from: k}):
			unix.Close(f.Files[i])
			refused = append(refused, id)
		}
	}
	if len(refused) > 0 {
		k.settle(msgNack, refused)
	}
}

// send is the present link's.
func (w *Worker) send(typ uint8, payload []byte) error { return w.link.Load().send(typ, payload, nil) }
