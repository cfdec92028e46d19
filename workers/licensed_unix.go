//go:build unix

package workers

import (
	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// The worker's side of licences: it accepts from the socket that came with one.

// licensed takes a licence. A worker that cannot have it says so, and is asked
// again later.
func (w *Worker) licensed(k *link, f ipc.Frame) {
	n, err := decodeLicence(f.Payload)
	if err != nil || int(n) >= len(w.listeners) || len(f.Files) != 1 {
		closeForeign(f.Files)
		if err == nil {
			_ = k.send(msgUnlicensed, encodeLicence(n), nil)
		}
		return
	}
	answer := msgLicensed
	e := &w.estate
	e.mu.Lock()
	if e.given {
		unix.Close(f.Files[0])
		answer = msgUnlicensed
	} else {
		e.stopOwn(n, false)
		e.startOwn(w.listeners[n], f.Files[0], true).licensed = true
	}
	e.mu.Unlock()
	_ = k.send(answer, encodeLicence(n), nil)
}

// unlicensed gives a licence back. Everything that was accepted by it is this
// worker's by then.
func (w *Worker) unlicensed(k *link, payload []byte) {
	n, err := decodeLicence(payload)
	if err != nil {
		return
	}
	w.estate.mu.Lock()
	w.estate.stopOwn(n, false)
	w.estate.mu.Unlock()
	_ = k.send(msgUnlicensed, encodeLicence(n), nil)
}

// startOwn makes this worker accept for itself on l, from the socket fd. Called
// locked.
func (e *estate) startOwn(l *Listener, fd int, owned bool) *ownAcceptor {
	if e.own == nil {
		e.own = map[uint16]*ownAcceptor{}
	}
	a := newOwnAcceptor(l, fd, owned)
	e.own[l.index] = a
	return a
}

// stopOwn ends that. Called locked.
func (e *estate) stopOwn(n uint16, sweep bool) (licensed bool) {
	a := e.own[n]
	if a == nil {
		return false
	}
	a.stop(sweep)
	delete(e.own, n)
	return a.licensed
}
