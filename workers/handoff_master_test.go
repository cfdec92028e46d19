//go:build unix

package workers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/workers/dispatch"
)

// newAdopting is a dispatcher whose generation adopts from the first listener.
func newAdopting(t *testing.T, workers int) (*dispatcher, []*far) {
	t.Helper()
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), workers)
	d.mu.Lock()
	d.adopts = []bool{true, false}
	d.mu.Unlock()
	return d, fars
}

// offer offers a connection for a to hand off, and returns its client.
func (a *far) offer(id uint64, listener uint16) *net.TCPConn {
	a.t.Helper()
	client, fd := tcpPair(a.t)
	a.w.dispatched++ // it had it
	m := Moved{Handoff: true, State: []byte("state"), Unread: []byte("unread")}
	if err := a.w.d.giveBack(returning{w: a.w, id: id, fd: fd, listener: listener, moved: m}); err != nil {
		a.t.Fatal(err)
	}
	return client
}

// answered requires that the next answer to an offer is this one.
func (a *far) answersTo(id uint64, typ, why uint8) {
	a.t.Helper()
	for {
		f, err := a.conn.Recv()
		if err != nil {
			a.t.Fatal(err)
		}
		if f.Type != msgReceipt && f.Type != msgKeep {
			continue
		}
		want := appendID(nil, id)
		if typ == msgKeep {
			want = append(want, why)
		}
		if f.Type != typ || string(f.Payload) != string(want) {
			a.t.Fatalf("answer %d %v, want %d %v", f.Type, f.Payload, typ, want)
		}
		return
	}
}

// nextGeneration makes another generation serve.
func nextGeneration(t *testing.T, d *dispatcher, adopts ...bool) (*far, *ledger) {
	t.Helper()
	l := newLedger(d.serving.generation + 1)
	a := newFar(t, d, 1, l)
	t.Cleanup(func() { closeAll(d, []*far{a}) })
	d.serve([]*window{a.w}, l, adopts, rule{})
	return a, l
}

// requireEnded requires that a client sees the end of its connection.
func requireEnded(t *testing.T, client *net.TCPConn) {
	t.Helper()
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client sees %v, want the end", err)
	}
}

func TestHandedOffGoesToAWorkerThatAdopts(t *testing.T) {
	d, fars := newAdopting(t, 1)
	old := fars[0]
	next, l := nextGeneration(t, d, true, false)
	client := old.offer(5, 0)
	old.answersTo(5, msgReceipt, 0)
	f, err := next.conn.Recv()
	if err != nil {
		t.Fatal(err)
	}
	id, listener, m, err := parseMoved(f.Payload)
	if f.Type != msgMoved || err != nil || listener != 0 || !m.Handoff || string(m.State) != "state" || string(m.Unread) != "unread" {
		t.Fatalf("message %d for listener %d, %+v, %v", f.Type, listener, m, err)
	}
	next.fds[id], next.got = f.Files[0], []uint64{id}
	next.ack(id)
	requireEnded(t, client) // the master has no copy any more
	checkLedger(t, l, 0)
	if l.acknowledged != 1 {
		t.Errorf("%+v", l)
	}
}

func TestOfferThatNobodyWouldTakeIsKept(t *testing.T) {
	d, fars := newAdopting(t, 1)
	old := fars[0]
	nextGeneration(t, d, true, false)
	old.offer(1, 1)
	old.answersTo(1, msgKeep, keptUnadopted)
	old.offer(2, 7)
	old.answersTo(2, msgKeep, keptUnadopted)
	d.serve(nil, d.serving, []bool{true, false}, rule{}) // its workers are dead
	old.offer(3, 0)
	old.answersTo(3, msgKeep, keptUnserved)
	nextGeneration(t, d, true, false)
	d.noReturns()
	old.offer(4, 0)
	old.answersTo(4, msgKeep, keptUnserved)
	if len(d.queue)+len(d.returning)+old.w.returning != 0 || d.serving.accepted != 0 {
		t.Errorf("%d queued, %d offered, %+v", len(d.queue), len(d.returning), d.serving)
	}
}

// An offer waits for room, a moment, and then at its worker; who does not adopt
// takes none of those that wait.
func TestOfferWaitsForRoom(t *testing.T) {
	d, fars := newAdopting(t, 1)
	old := fars[0]
	next, _ := nextGeneration(t, d, true, false)
	d.stall(next.w, true)
	old.offer(1, 0)
	old.answersTo(1, msgKeep, keptLate)
	old.offer(2, 0)
	_, l := nextGeneration(t, d, false, false)
	old.answersTo(2, msgKeep, keptUnadopted)
	if len(d.returning)+old.w.returning != 0 {
		t.Errorf("%d offers are left, %d by count", len(d.returning), old.w.returning)
	}
	checkLedger(t, l, 0)
}

// What was taken from a worker and has not been adopted yet when the generation
// changes to one that adopts nothing is refused, wherever it is.
func TestHandedOffIsRefusedWhenNobodyAdoptsAnyMore(t *testing.T) {
	for where, lose := range map[string]func(d *dispatcher, a *far){
		"sent, and sent back":      func(d *dispatcher, a *far) { a.recv(); nextGeneration(t, d, false); a.nack(1) },
		"sent to one that dies":    func(d *dispatcher, a *far) { a.recv(); nextGeneration(t, d, false); a.die(); d.abandon(a.w, 0) },
		"sent to one without":      func(d *dispatcher, a *far) { a.recv(); a.unadopted(1) },
		"sent back, and in queue":  func(d *dispatcher, a *far) { a.recv(); d.stall(a.w, true); a.nack(1); nextGeneration(t, d, false) },
		"of a listener now absent": func(d *dispatcher, a *far) { a.recv(); nextGeneration(t, d); a.nack(1) },
	} {
		t.Run(where, func(t *testing.T) {
			d, fars := newAdopting(t, 1)
			a, l := fars[0], d.serving
			client := a.offer(9, 0)
			lose(d, a)
			requireEnded(t, client)
			if n := l.refused[refusedAdopter]; n != 1 || len(d.queue) != 0 {
				t.Errorf("ledger %+v, %d queued", l, len(d.queue))
			}
			checkLedger(t, l, 0)
			checkLedger(t, d.serving, 0)
		})
	}
}

func TestHandedOffIsRedispatchedToThoseWhoAdopt(t *testing.T) {
	d, fars := newAdopting(t, 2)
	a, b := fars[0], fars[1]
	d.stall(b.w, true)
	a.offer(1, 0)
	ids := a.recv()
	d.stall(b.w, false)
	a.die()
	if n := d.abandon(a.w, 0); n != 1 {
		t.Errorf("%d requeued", n)
	}
	want(t, "the other got", b.recv(), ids)
	b.ack(ids...)
	checkLedger(t, d.serving, 0)
}

func TestUnadoptedIsOnlyForWhatWasHandedOff(t *testing.T) {
	d, fars := newAdopting(t, 1)
	a := fars[0]
	accept(t, d, 1)
	ids := a.recv()
	for what, payload := range map[string][]byte{
		"an accepted one": appendID(nil, ids[0]), "an unknown one": appendID(nil, 99), "half of one": {1, 2}, "nothing": nil,
	} {
		if err := d.unadopted(a.w, payload); !errors.Is(err, errProtocol) {
			t.Errorf("unadopted %s: %v", what, err)
		}
	}
	a.settle(ids...)
	want(t, "it comes again", a.recv(), ids)
	checkLedger(t, d.serving, 1)
}

// A new master that has adopted workers hears them before anybody serves.
func TestOffersWaitForTheFirstToServe(t *testing.T) {
	d := newDispatcher(dispatch.RoundRobin())
	d.accepted = make([]uint64, 2)
	old := newFar(t, d, 1, newLedger(1))
	for id, listener := range []uint16{0, 1, 0} {
		old.offer(uint64(id), listener)
	}
	idle := socket(t)
	old.w.dispatched++
	if err := d.giveBack(returning{w: old.w, id: 3, fd: idle}); err != nil {
		t.Fatal(err)
	}
	d.serving = newLedger(1) // for nextGeneration to count from
	next, l := nextGeneration(t, d, true, false)
	old.answersTo(0, msgReceipt, 0)
	old.answersTo(1, msgKeep, keptUnadopted)
	old.answersTo(2, msgReceipt, 0)
	old.answersTo(3, msgReceipt, 0)
	for len(next.got) < 3 {
		next.recv()
	}
	checkLedger(t, l, 3)
}

// A worker that offers more than it may breaks the protocol.
func TestOffersAreCounted(t *testing.T) {
	d, fars := newAdopting(t, 1)
	next, _ := nextGeneration(t, d, true)
	d.stall(next.w, true)
	for id := range uint64(2 * maxReturns) {
		fars[0].offer(id, 0)
	}
	fd := socket(t)
	defer unix.Close(fd)
	if err := d.giveBack(returning{w: fars[0].w, fd: fd, moved: Moved{Handoff: true}}); !errors.Is(err, errProtocol) {
		t.Error(err)
	}
	d.noReturns()
}

func TestHandedOffSurvivesTheHandover(t *testing.T) {
	want := heldRecord{ID: 3, At: time.Unix(9, 0).UTC(), Moved: &Moved{Handoff: true, State: []byte{0, 255}, Unread: []byte("u")}}
	var got heldRecord
	if err := json.Unmarshal(encode(want), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(fmt.Sprint("as read back: ", diff))
	}
}
