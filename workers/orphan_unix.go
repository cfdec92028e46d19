//go:build unix

package workers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// A worker of a generation that serves outlives its master, if it was trusted
// to. Without one it accepts on its own copies of the listeners, which sleep
// otherwise, and presents itself to whoever answers in the runtime directory.
// From an order to drain on, or once it knows that the service stops, it holds
// no listener any more, and its master's death is the end of its accepting.

// estate is what a worker has to live on without a master.
type estate struct {
	mu        sync.Mutex
	bond      Bond
	trust     *trust
	files     []int                   // counters and crash file, for the next master
	listeners []int                   // sockets, in the worker's order; nil once they are given up
	of        []int                   // whose each of them is
	own       map[uint16]*ownAcceptor // by listener: what this worker accepts for itself
	others    []*besideAcceptor       // from sockets of other slots, as an orphan
	given     bool                    // up for good: it accepts nothing for itself any more
	leash     *os.File
	final     bool // no orphan any more, whatever happens
	timer     *time.Timer
	onBond    func(Bond)
}

// trustFiles come with every trust, before the listeners.
const trustFiles = 2

// maxTrusted is how many listeners there can be: what fits into a message, beside
// the leash.
const maxTrusted = ipc.MaxFiles - trustFiles - 1

// OnBond has f called when this worker becomes an orphan, and with what ends
// that. It must not block.
func (w *Worker) OnBond(f func(Bond)) {
	w.estate.mu.Lock()
	defer w.estate.mu.Unlock()
	w.estate.onBond = f
}

func (e *estate) become(b Bond) {
	was := e.bond
	move(&e.bond, b, bondMoves)
	if e.onBond != nil && (was == Orphan || b == Orphan) {
		e.onBond(b)
	}
}

// entrusted takes what a master gives its worker to live on. A later one, of
// another master, replaces it.
func (w *Worker) entrusted(f ipc.Frame) {
	files := slices.Clone(f.Files)
	t, err := decode[trust](f.Payload)
	sockets := len(files) - trustFiles
	if t.Leash {
		sockets--
	}
	of, fit := spans(t.Sockets, len(w.listeners), sockets)
	e := &w.estate
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil || t.Timeout <= 0 || !fit || e.final {
		closeAllFDs(files)
		return
	}
	closeAllFDs(e.files)
	closeAllFDs(e.listeners)
	e.dropLeash()
	if t.Leash {
		last := len(files) - 1
		_ = unix.SetNonblock(files[last], true) // or Close would not end the wait
		e.leash = os.NewFile(uintptr(files[last]), "leash")
		files = files[:last]
		go w.feel(e.leash)
	}
	e.trust, e.files, e.listeners, e.of = &t, files[:trustFiles:trustFiles], files[trustFiles:], of
}

// feel waits for the end of the leash, a pipe whose other end the supervisor has
// for as long as it would start the service again.
func (w *Worker) feel(leash *os.File) {
	_, err := io.Copy(io.Discard, leash)
	e := &w.estate
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && e.leash == leash { // else it is not this worker's any more
		e.giveUpHope(w)
	}
}

// giveUpHope makes an orphan resign, and keeps others from becoming one.
func (e *estate) giveUpHope(w *Worker) {
	e.final = true
	if e.bond == Orphan {
		e.become(Resigned)
		w.forsake()
	}
}

func (e *estate) dropLeash() {
	if e.leash != nil {
		e.leash.Close()
		e.leash = nil
	}
}

// hush: there is a master that accepts. It is told which licences that ends.
func (w *Worker) hush(k *link) {
	w.estate.mu.Lock()
	ended := w.estate.stopAccepting(false)
	w.estate.mu.Unlock()
	for _, n := range ended {
		_ = k.send(msgUnlicensed, encodeLicence(n), nil)
	}
}

// bequest: the service ends. This worker outlives no master from then on. What
// it accepts on because there was none, nobody else does; a licence lasts until
// it is told to drain.
func (w *Worker) bequest() {
	e := &w.estate
	e.mu.Lock()
	defer e.mu.Unlock()
	e.final = true
	for n, a := range e.own {
		if !a.licensed {
			e.stopOwn(n, true)
		}
	}
	e.stopOthers(true)
	closeAllFDs(e.listeners)
	e.listeners = nil
}

// renounce gives the listeners up for good.
func (w *Worker) renounce(sweep bool) {
	w.estate.mu.Lock()
	defer w.estate.mu.Unlock()
	w.estate.giveUp(sweep)
}

// giveUp may sweep first what this worker accepts on: for when nobody else will.
func (e *estate) giveUp(sweep bool) {
	e.final, e.given = true, true
	e.stopAccepting(sweep)
	closeAllFDs(e.listeners)
	e.listeners = nil
}

// forget gives up the rest: nobody adopts this worker any more.
func (e *estate) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	closeAllFDs(e.files)
	e.files = nil
	e.dropLeash()
	if e.timer != nil {
		e.timer.Stop()
	}
}

// stopAccepting returns the listeners for which there was a licence.
func (e *estate) stopAccepting(sweep bool) (licensed []uint16) {
	for n := range e.own {
		if e.stopOwn(n, sweep) {
			licensed = append(licensed, n)
		}
	}
	e.stopOthers(sweep)
	return licensed
}

func (e *estate) stopOthers(sweep bool) {
	for _, a := range e.others {
		a.stop(sweep)
	}
	e.others = nil
}

// lost: the master at the other end of k is gone, and what it said is done.
func (w *Worker) lost(k *link) {
	serving := w.Serving()
	e := &w.estate
	e.mu.Lock()
	defer e.mu.Unlock()
	close(k.lost)
	for _, a := range e.own { // the licences end with who gave them, the accepting goes on
		a.licensed = false
	}
	if serving && e.trust != nil && !e.final {
		e.become(Orphan)
		e.acceptAll(w)
		e.timer = time.AfterFunc(e.trust.Timeout, w.timeIsUp)
	} else {
		e.become(Resigned)
		w.forsake()
	}
	if e.trust != nil {
		go w.seek()
	}
}

// acceptAll makes an orphan accept from every socket: it may be the only one, also
// of those that other slots had. What it accepts from already, because it had a
// licence or was adopted by a master that never accepted, it goes on with.
func (e *estate) acceptAll(w *Worker) {
	again := len(e.others) > 0
	for i, fd := range e.listeners {
		l := w.listeners[e.of[i]]
		switch {
		case e.own[l.index] == nil:
			e.startOwn(l, fd, false)
		case e.trust.Sockets != nil && e.trust.Sockets[e.of[i]] > 1 && !again:
			e.others = append(e.others, newBesideAcceptor(l, fd))
		}
	}
}

// timeIsUp: no master has come.
func (w *Worker) timeIsUp() {
	e := &w.estate
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.bond == Orphan {
		e.giveUpHope(w)
	}
}

// Deserted returns where the next master would listen, if this worker was trusted
// to wait for it and has not been adopted; else "".
func (w *Worker) Deserted() string {
	e := &w.estate
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.bond == Bonded || e.trust == nil {
		return ""
	}
	return e.trust.Socket
}

// mayBeAdopted says whether this worker looks for a master when it has none.
func (w *Worker) mayBeAdopted() bool {
	w.estate.mu.Lock()
	defer w.estate.mu.Unlock()
	return w.estate.trust != nil
}

func (w *Worker) forsake() { w.forsakenOnce.Do(func() { close(w.orphaned) }) }

// Pauses between two looks for a master.
const (
	minSeek = 10 * time.Millisecond
	maxSeek = 100 * time.Millisecond
)

// seek presents this worker to masters until one adopts it, or its end.
func (w *Worker) seek() {
	for pause := minSeek; w.ctx.Err() == nil; pause = min(2*pause, maxSeek) {
		conn, serves, err := w.present()
		if err == nil {
			w.adopted(conn, serves)
			return
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-w.ctx.Done():
		}
	}
}

// present returns when a master has adopted this worker, which takes it as long
// as it needs for its own start; as one that serves, or as one that drains.
func (w *Worker) present() (*ipc.Conn, bool, error) {
	e := &w.estate
	e.mu.Lock()
	path := e.trust.Socket
	e.mu.Unlock()
	conn, err := dialMaster(path)
	if err != nil {
		return nil, false, err
	}
	defer context.AfterFunc(w.ctx, func() { _ = conn.Shutdown() })()
	e.mu.Lock()
	serves := e.listeners != nil
	p := presence{
		Protocol: protocol, Nonce: w.nonce, Generation: w.id.Generation, Slot: w.id.Slot,
		Draining: !serves, Sockets: e.trust.Sockets,
	}
	err = conn.TrySend(msgPresent, encode(p), slices.Concat(e.files, e.listeners)) // into an empty socket
	e.mu.Unlock()
	if err == nil {
		err = adoption(conn)
	}
	if err != nil {
		conn.Close()
		return nil, false, err
	}
	return conn, serves, nil
}

// adoption waits for the answer of a master.
func adoption(conn *ipc.Conn) error {
	f, err := conn.Recv()
	if err == nil && f.Type != msgAdopted {
		closeForeign(f.Files)
		err = errProtocol
	}
	return err
}

func dialMaster(path string) (*ipc.Conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	return ipc.NewConn(f)
}

// adopted: conn is to a master that has taken this worker over. It goes on
// accepting for itself, if it did, until that master tells it not to.
func (w *Worker) adopted(conn *ipc.Conn, served bool) {
	k := newLink(conn)
	e := &w.estate
	e.mu.Lock()
	if e.timer != nil {
		e.timer.Stop()
	}
	e.become(Bonded)
	_ = w.link.Swap(k).conn.Close()
	left := served && e.final // meanwhile
	e.mu.Unlock()
	if w.ctx.Err() != nil { // Close has seen the link before
		_ = conn.Close()
	}
	if left {
		_ = k.send(msgLeave, nil, nil)
	}
	w.receive(k)
}

// receive takes what a master says until its end.
func (w *Worker) receive(k *link) {
	defer w.lost(k)
	for {
		f, err := k.conn.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				fmt.Fprintf(os.Stderr, "baton: worker %s: %v\n", w.id, err)
			}
			return
		}
		w.hear(k, f)
	}
}

func closeAllFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
