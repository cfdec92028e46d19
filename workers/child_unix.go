//go:build unix

package workers

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/baton-go/baton/workers/ipc"
)

// child is a worker as its master sees it. The pool's goroutine owns it; only
// its reader runs beside that, and talks to the dispatcher and posts to the pool.
type child struct {
	started
	id      ID
	gen     *generation
	window  *window
	state   WorkerState
	restart bool

	born, ready time.Time
	replaces    *child // drained once this one serves
	welcomed    bool   // it knows what is shared
	expected    bool   // the master wants it to end
	reason      string // why it ends or failed, if known
	report      *Drained
	timer       *time.Timer // ready, drain or kill deadline
	drainBy     time.Time   // when a draining worker is cut

	pinged   time.Time    // of the ping not answered yet; zero if none
	pingOwed bool         // it did not fit into the socket yet
	ponged   atomic.Bool  // set by the reader
	stalled  bool         // out of the rotation
	dumped   time.Time    // SIGQUIT was sent
	faults   atomic.Int32 // protocol errors

	start     uint64 // see startTime; 0 until it is asked for
	recorded  bool   // on disk it is known for this worker
	entrusted bool   // it can live on without a master

	licences []licenceState // by its own numbers of the listeners
	owed     atomic.Int32   // answers about them that have not been read
	owing    time.Time      // since when one is waited for; zero if none is

	heard      uint64   // messages that are sent once; the reader's
	later      bool     // it speaks a version after ours; the reader's
	keys       []string // of its listeners, in its order; nil: ours
	readerDone chan struct{}
}

// maxFaults is how many protocol errors a worker may commit while it is being
// drained for the first one.
const maxFaults = 16

// read is the reader: until the end of the socket, or until a freeze stops it.
// Everything it posts arrives in order.
func (p *Pool) read(c *child, done chan struct{}) {
	defer close(done)
	for {
		f, err := c.conn.Recv()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			p.post(func() { p.disconnected(c) })
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err == nil:
			err = p.receive(c, f)
		}
		if err != nil {
			if c.faults.Add(1) > maxFaults {
				p.post(func() { p.kill(c, "floods its master with errors: "+err.Error()) })
				return
			}
			p.post(func() { p.misbehaved(c, err) })
		}
	}
}

func (p *Pool) receive(c *child, f ipc.Frame) error {
	if f.Type == msgReturn {
		return p.returned(c, f)
	}
	if f.Type >= msgLater && c.later {
		fds := append([]int(nil), f.Files...)
		go closeForeign(fds)
		return nil
	}
	if len(f.Files) > 0 {
		// No other message of a worker carries files. Off this goroutine, for a
		// socket among them may linger.
		fds := append([]int(nil), f.Files...)
		go closeForeign(fds)
		return errProtocol
	}
	switch f.Type {
	case msgAck:
		return p.d.ack(c.window, f.Payload)
	case msgNack:
		return p.d.nack(c.window, f.Payload)
	case msgUnadopted:
		return p.d.unadopted(c.window, f.Payload)
	case msgPong:
		c.ponged.Store(true)
	case msgLicensed, msgUnlicensed:
		n, err := decodeLicence(f.Payload)
		if err != nil || c.owed.Add(-1) < 0 { // unasked: it must not be able to fill the pool's time
			return errProtocol
		}
		accepts := f.Type == msgLicensed
		p.post(func() {
			if err := p.licenceAnswered(c, n, accepts); err != nil {
				p.misbehaved(c, err)
			}
		})
	case msgIntro:
		in, err := decode[Intro](f.Payload)
		if err != nil {
			return err
		}
		c.later = in.Protocol.Newest > protocol.Newest
		p.once(c, f.Type, func() { p.introduced(c, in) })
	case msgReady:
		p.once(c, f.Type, func() { p.isReady(c) })
	case msgFailed:
		why, err := decode[failure](f.Payload)
		if err != nil {
			return err
		}
		p.once(c, f.Type, func() { p.failed(c, why.Reason) })
	case msgLeave:
		p.once(c, f.Type, func() { p.leaving(c, "asked to by a signal") })
	case msgDrained:
		r, err := decode[Drained](f.Payload)
		if err != nil {
			return err
		}
		p.once(c, f.Type, func() {
			believed := r.believed()
			c.report = &believed
		})
	default:
		return errProtocol
	}
	return nil
}

// once posts f for the first message of a type. More are ignored: each costs the
// pool's goroutine a moment, and a worker must not be able to fill its time.
func (p *Pool) once(c *child, typ uint8, f func()) {
	if bit := uint64(1) << (typ - msgIntro); c.heard&bit == 0 {
		c.heard |= bit
		p.post(f)
	}
}

// watch waits for the death of c.
func (p *Pool) watch(c *child) {
	status := c.proc.wait()
	p.post(func() { p.died(c, status) })
}

// died starts the end of a worker: first everything it still said is read, for
// its acknowledgements decide who owns its connections.
func (p *Pool) died(c *child, status string) {
	if p.frozen {
		p.deferred = append(p.deferred, func() { p.died(c, status) })
		return
	}
	_ = c.conn.Shutdown()
	readerDone := c.readerDone // a thaw makes a new one
	go func() {
		select {
		case <-readerDone:
		case <-time.After(lastWordsWait):
		}
		if c.out != nil {
			select {
			case <-c.out.done:
			case <-time.After(outputWait): // a grandchild holds the pipe
			}
		}
		p.post(func() {
			if c.readerDone != readerDone { // frozen and thawed meanwhile: it reads again
				p.died(c, status)
				return
			}
			p.exited(c, status)
		})
	}()
}

// lastWordsWait bounds the wait for the reader of a dead worker. What it has to
// read fits into a socket's buffer; this is for what nobody has thought of, and
// must not keep a successor from being started.
const lastWordsWait = 5 * time.Second

// outputWait bounds the wait for the last of a dead worker's stderr.
const outputWait = 200 * time.Millisecond

func (c *child) setTimer(d time.Duration, p *Pool, f func()) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(d, func() { p.post(f) })
}

// say sends a control message without ever blocking the pool. A worker whose
// socket is full gets it once there is room, or is killed at its deadline.
func (c *child) say(typ uint8, payload []byte) {
	if err := c.conn.TrySend(typ, payload, nil); errors.Is(err, ipc.ErrWouldBlock) || errors.Is(err, ipc.ErrLoad) {
		conn := c.conn
		go func() { _ = conn.Send(typ, payload, nil) }()
	}
}

func (p *Pool) kill(c *child, reason string) {
	if c.state == WorkerIsKilled || c.state == WorkerIsGone {
		return
	}
	if c.reason == "" {
		c.reason = reason
	}
	move(&c.state, WorkerIsKilled, workerMoves)
	p.retarget()
	p.emit(WorkerKilled{Worker: c.id, PID: c.proc.pid, Reason: reason})
	_ = c.proc.signal(syscall.SIGKILL)
}
