//go:build unix

package workers

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
	"github.com/baton-go/baton/workers/ipc"
)

// patience bounds what a test waits for; nothing waits that long.
const patience = 20 * time.Second

// far is a worker's end of a window.
type far struct {
	t    testing.TB
	w    *window
	conn *ipc.Conn
	got  []uint64 // ids, in the order they came, not settled yet
	fds  map[uint64]int
}

func newFar(t testing.TB, d *dispatcher, slot int, l *ledger) *far {
	t.Helper()
	near, f, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ipc.NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	a := &far{t: t, w: d.newWindow(near, slot, l), conn: conn, fds: map[uint64]int{}}
	t.Cleanup(func() { near.Close(); a.die() })
	return a
}

// recv takes one message of connections; others are skipped.
func (a *far) recv() []uint64 {
	a.t.Helper()
	for {
		f, err := a.conn.Recv()
		if err != nil {
			a.t.Fatalf("worker %d: %v, having %v", a.w.slot, err, a.got)
		}
		if f.Type != msgConn {
			continue
		}
		n, err := connCount(f.Payload, len(f.Files))
		if err != nil {
			a.t.Fatal(err)
		}
		var ids []uint64
		for i := range n {
			id, _ := connEntry(f.Payload, i)
			ids = append(ids, id)
			a.fds[id] = f.Files[i]
		}
		a.got = append(a.got, ids...)
		return ids
	}
}

// settle removes ids from what it holds and returns them as a payload.
func (a *far) settle(ids ...uint64) []byte {
	var b []byte
	for _, id := range ids {
		unix.Close(a.fds[id])
		delete(a.fds, id)
		a.got = slices.DeleteFunc(a.got, func(o uint64) bool { return o == id })
		b = appendID(b, id)
	}
	return b
}

func (a *far) ack(ids ...uint64) {
	a.t.Helper()
	if err := a.w.d.ack(a.w, a.settle(ids...)); err != nil {
		a.t.Fatalf("ack of %v: %v", ids, err)
	}
}

func (a *far) nack(ids ...uint64) {
	a.t.Helper()
	if err := a.w.d.nack(a.w, a.settle(ids...)); err != nil {
		a.t.Fatalf("nack of %v: %v", ids, err)
	}
}

// die closes everything, as the end of its process does.
func (a *far) die() {
	a.conn.Close()
	for _, fd := range a.fds {
		unix.Close(fd)
	}
	clear(a.fds)
	a.got = nil
}

// fill makes its socket full.
func (a *far) fill() {
	a.t.Helper()
	for {
		switch err := a.w.conn.TrySend(msgPing, make([]byte, ipc.MaxPayload), nil); {
		case errors.Is(err, ipc.ErrWouldBlock):
			return
		case err != nil:
			a.t.Fatal(err)
		}
	}
}

func newTestDispatcher(t testing.TB, p dispatch.Policy, workers int) (*dispatcher, []*far) {
	t.Helper()
	d := newDispatcher(p)
	d.accepted = make([]uint64, 2)
	l := newLedger(1)
	var fars []*far
	var ws []*window
	for slot := 1; slot <= workers; slot++ {
		a := newFar(t, d, slot, l)
		fars = append(fars, a)
		ws = append(ws, a.w)
	}
	d.serve(ws, l)
	t.Cleanup(func() { closeAll(d, fars) })
	return d, fars
}

// closeAll closes the master's copies.
func closeAll(d *dispatcher, fars []*far) {
	d.close(true)
	d.refuseAll()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range fars {
		for _, h := range a.w.unacked {
			unix.Close(h.fd)
		}
		a.w.unacked = nil
	}
}

// socket returns a connected descriptor, whose other end is closed already.
func socket(t testing.TB) int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(fds[0])
	unix.Close(fds[1])
	return fds[0]
}

// accept does what an accept loop does: up to n connections for which there
// is room. It returns how many those were.
func accept(t testing.TB, d *dispatcher, n int) int {
	t.Helper()
	room := d.Reserve(n)
	fds := make([]int, room)
	for i := range fds {
		fds[i] = socket(t)
	}
	if room > 0 {
		d.take(fds, 0)
	}
	return room
}

func (d *dispatcher) queued() (ids []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.queue {
		ids = append(ids, h.id)
	}
	return ids
}

func checkLedger(t testing.TB, l *ledger, pending int) {
	t.Helper()
	sum := l.acknowledged + uint64(pending) + l.redispatched
	for _, n := range l.refused {
		sum += n
	}
	if l.accepted != sum {
		t.Fatalf("ledger of generation %d: accepted %d, but %d acknowledged + %d pending + %d redispatched + %v refused",
			l.generation, l.accepted, l.acknowledged, pending, l.redispatched, l.refused)
	}
}

func want(t testing.TB, what string, got, want []uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func TestRoundRobinIsStrictAcrossBatches(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 3)
	for _, n := range []int{1, 3, 2, 16, 5} {
		if got := accept(t, d, n); got != n {
			t.Fatalf("room for %d, want %d", got, n)
		}
	}
	for i, a := range fars {
		for len(a.got) < 9 {
			a.recv()
		}
		var ids []uint64
		for id := uint64(i + 1); id <= 27; id += 3 {
			ids = append(ids, id)
		}
		want(t, fmt.Sprintf("worker %d", i+1), a.got, ids)
	}
	if n := d.accepted[0]; n != 27 {
		t.Errorf("%d accepted, want 27", n)
	}
}

func TestBatchTravelsInOneMessage(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	accept(t, d, acceptBatch)
	if ids := fars[0].recv(); len(ids) != acceptBatch {
		t.Errorf("%d connections in the first message, want %d", len(ids), acceptBatch)
	}
}

func TestWindowsAreRespected(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	total := 0
	for {
		n := accept(t, d, acceptBatch)
		if n == 0 {
			break
		}
		total += n
	}
	if total != 2*DefaultWindow {
		t.Errorf("%d connections were let in, want %d", total, 2*DefaultWindow)
	}
	room := d.wait()
	select {
	case <-room:
		t.Fatal("there is said to be room")
	default:
	}
	first := fars[0].recv()
	fars[0].ack(first[0])
	select {
	case <-room:
	case <-time.After(patience):
		t.Fatal("an acknowledgement does not wake accept loops")
	}
	if n := d.Reserve(acceptBatch); n != 1 {
		t.Errorf("room for %d, want 1", n)
	}
	d.Refund(1)
	for _, a := range fars {
		if n := len(a.w.unacked); n > DefaultWindow {
			t.Errorf("%d unacknowledged, window %d", n, DefaultWindow)
		}
	}
}

func TestReservedRoomIsNobodyElses(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	if n := d.Reserve(10); n != 10 {
		t.Fatalf("reserved %d", n)
	}
	if n := d.Reserve(1000); n != DefaultWindow-10 {
		t.Fatalf("then %d, want %d", n, DefaultWindow-10)
	}
	if n := d.Reserve(1); n != 0 {
		t.Fatalf("then %d, want 0", n)
	}
	room := d.wait()
	d.Refund(DefaultWindow - 10)
	select {
	case <-room:
	default:
		t.Error("a refund wakes nobody")
	}
	d.take([]int{socket(t), socket(t)}, 1)
	d.Refund(8)
	if d.reserved != 0 || d.accepted[1] != 2 {
		t.Errorf("%d reserved, want 0; %d accepted at the second listener, want 2", d.reserved, d.accepted[1])
	}
	want(t, "received", fars[0].recv(), []uint64{1, 2})

	d.close(true)
	if n := d.Reserve(1); n != 0 {
		t.Errorf("room for %d when closed", n)
	}
	room = d.wait()
	d.close(false)
	select {
	case <-room:
	default:
		t.Error("the end of a freeze wakes nobody")
	}
	d.hold(true)
	if n := d.Reserve(1); n != 0 {
		t.Errorf("room for %d when held", n)
	}
	room = d.wait()
	d.hold(false)
	select {
	case <-room:
	default:
		t.Error("the end of a hold wakes nobody")
	}
}

func TestFullSocketLosesNothingAndKeepsTheOrder(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	if d.Reserve(16) != 16 || d.Reserve(4) != 4 {
		t.Fatal("no room")
	}
	var fds []int
	for range 20 {
		fds = append(fds, socket(t))
	}
	for _, a := range fars {
		a.fill()
	}
	d.take(fds[:16], 0)
	d.take(fds[16:], 0)
	var all []uint64
	for id := range uint64(20) {
		all = append(all, id+1)
	}
	want(t, "queue", d.queued(), all)
	if n := d.Reserve(1); n != 0 {
		t.Errorf("room for %d while connections wait", n)
	}
	// Nothing but the timer tries again.
	came := make(chan []uint64, len(all))
	var readers sync.WaitGroup
	for _, a := range fars {
		readers.Go(func() {
			for {
				f, err := a.conn.Recv()
				if err != nil {
					return
				}
				var ids []uint64
				for i, fd := range f.Files {
					unix.Close(fd)
					id, _ := connEntry(f.Payload, i)
					ids = append(ids, id)
				}
				if f.Type == msgConn {
					came <- ids
				}
				if !slices.IsSorted(ids) {
					t.Errorf("worker %d got %v: out of order", a.w.slot, ids)
				}
			}
		})
	}
	var got []uint64
	for len(got) < len(all) {
		select {
		case ids := <-came:
			got = append(got, ids...)
		case <-time.After(patience):
			t.Fatalf("only %v came; queue %v", got, d.queued())
		}
	}
	for _, a := range fars {
		_ = a.w.conn.Shutdown()
	}
	readers.Wait()
	slices.Sort(got)
	want(t, "arrived", got, all)
	checkLedger(t, d.serving, 20)
}

func TestOneFullSocketDelaysNobodyElse(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	fars[0].fill()
	accept(t, d, 6)
	for len(fars[1].got) < 6 {
		fars[1].recv()
	}
	if len(fars[0].w.unacked) != 0 || fars[0].w.backoff != minBlocked {
		t.Errorf("the full one holds %d and is blocked for %v", len(fars[0].w.unacked), fars[0].w.backoff)
	}
}

func TestRefusedConnectionGoesElsewhereAndTheWorkerRests(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	accept(t, d, 2)
	a, b := fars[0], fars[1]
	a.recv()
	b.recv()
	before := time.Now()
	a.nack(1)
	want(t, "the other got", b.recv(), []uint64{1})
	if !a.w.blocked.After(before) || a.w.backoff != minBlocked {
		t.Errorf("blocked until %v, for %v", a.w.blocked, a.w.backoff)
	}
	if d.serving.redispatched != 1 || d.serving.accepted != 3 {
		t.Errorf("ledger %+v", d.serving)
	}
	checkLedger(t, d.serving, 2)
	// Longer each time, until it takes one.
	for _, backoff := range []time.Duration{2 * minBlocked, 4 * minBlocked} {
		d.mu.Lock()
		a.w.blocked = time.Time{}
		b.w.stalled = true
		d.mu.Unlock()
		if accept(t, d, 1) != 1 {
			t.Fatal("no room")
		}
		ids := a.recv()
		d.stall(b.w, false)
		a.nack(ids...)
		if a.w.backoff != backoff {
			t.Errorf("backoff %v, want %v", a.w.backoff, backoff)
		}
		for !slices.Contains(b.got, ids[0]) {
			b.recv()
		}
	}
	d.mu.Lock()
	for range 20 {
		a.w.block(time.Now())
	}
	if a.w.backoff != maxBlocked {
		t.Errorf("backoff %v, want at most %v", a.w.backoff, maxBlocked)
	}
	a.w.blocked = time.Time{}
	b.w.stalled = true
	d.mu.Unlock()
	accept(t, d, 1)
	a.ack(a.recv()...)
	if a.w.backoff != 0 {
		t.Errorf("backoff %v after an acknowledgement", a.w.backoff)
	}
}

func TestBlockedWorkerIsTriedAgainByItself(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	accept(t, d, 3)
	fars[0].recv()
	fars[0].nack(2, 3)
	want(t, "queue", d.queued(), []uint64{2, 3})
	want(t, "came again", fars[0].recv(), []uint64{2, 3})
}

func TestUnknownIDsAreProtocolErrors(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	accept(t, d, 2)
	a := fars[0]
	a.recv()
	for name, settle := range map[string]func(*window, []byte) error{"ack": d.ack, "nack": d.nack} {
		for what, payload := range map[string][]byte{
			"never sent": appendID(nil, 99), "another worker's": appendID(nil, 2),
			"nothing": {}, "half an id": {1, 2, 3},
		} {
			if err := settle(a.w, payload); !errors.Is(err, errProtocol) {
				t.Errorf("%s of %s: %v", name, what, err)
			}
		}
	}
	checkLedger(t, d.serving, 2)
	if err := d.ack(a.w, appendID(appendID(nil, 1), 1)); !errors.Is(err, errProtocol) {
		t.Errorf("ack twice: %v", err)
	}
	checkLedger(t, d.serving, 1)
}

func TestDeadWorkersConnectionsGoToOthersUnlessAcknowledged(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	a, b := fars[0], fars[1]
	b.w.stalled = true
	accept(t, d, 4)
	a.recv()
	a.ack(2, 3)
	a.die()
	d.stall(b.w, false)
	if n := d.abandon(a.w, 2); n != 2 {
		t.Errorf("%d requeued, want 2", n)
	}
	want(t, "the other got", b.recv(), []uint64{1, 4})
	if l := d.serving; l.cut != 2 || l.acknowledged != 2 || l.redispatched != 2 || l.accepted != 6 {
		t.Errorf("ledger %+v", l)
	}
	checkLedger(t, d.serving, 2)
	if n := a.w.free(time.Now()); n != 0 {
		t.Errorf("a dead worker has room for %d", n)
	}
}

func TestSendToTheDeadGoesElsewhere(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	fars[0].die()
	accept(t, d, 6)
	for len(fars[1].got) < 6 {
		fars[1].recv()
	}
	if !fars[0].w.gone || len(fars[0].w.unacked) != 0 {
		t.Error("the dead one is still thought to live")
	}
}

func TestNewGenerationTakesWhatTheOldCouldNot(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	accept(t, d, 3)
	fars[0].recv()
	fars[0].die()
	if n := d.abandon(fars[0].w, 0); n != 3 {
		t.Fatalf("%d requeued", n)
	}
	old := d.serving
	next := newLedger(2)
	b := newFar(t, d, 1, next)
	defer func() { closeAll(d, []*far{b}) }()
	d.serve([]*window{b.w}, next)
	want(t, "the new generation got", b.recv(), []uint64{1, 2, 3})
	checkLedger(t, old, 0)
	checkLedger(t, next, 3)
	b.ack(1, 2, 3)
	checkLedger(t, next, 0)
}

func TestRemovedListenersConnectionsStayWithTheirWorker(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	fars[1].w.stalled = true
	accept(t, d, 3)
	a := fars[0]
	a.recv()
	for i := range a.w.unacked {
		a.w.unacked[i].listener = noListener // as an adoption does
	}
	a.ack(1)
	a.nack(2)
	a.die()
	if n := d.abandon(a.w, 0); n != 0 {
		t.Errorf("%d requeued", n)
	}
	if n := d.serving.refused[refusedListener]; n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
	checkLedger(t, d.serving, 0)
}

// nonsense is a policy that cannot be trusted.
type nonsense struct{ r *rand.Rand }

func (nonsense) Name() string { return "nonsense" }

func (p nonsense) Pick(_ dispatch.Conn, ws []dispatch.Worker) int {
	switch p.r.Intn(4) {
	case 0:
		return -1 - p.r.Int()
	case 1:
		return len(ws) + p.r.Intn(1<<30)
	}
	return p.r.Intn(len(ws)) // with room or without
}

func TestPolicyCannotOverfillAWindow(t *testing.T) {
	d, fars := newTestDispatcher(t, nonsense{rand.New(rand.NewSource(1))}, 3)
	for range 400 {
		accept(t, d, 7)
		d.retry()
	}
	if n := len(d.queued()); n > 2*acceptBatch {
		t.Errorf("%d connections queued", n)
	}
	total := len(d.queued())
	for _, a := range fars {
		if n := len(a.w.unacked); n > DefaultWindow {
			t.Errorf("worker %d holds %d", a.w.slot, n)
		}
		total += len(a.w.unacked)
	}
	checkLedger(t, d.serving, total)
}

// TestLedgerBalancesWhateverHappens drives a dispatcher through random
// histories: nothing is lost, nothing is in two places, the sums are right.
func TestLedgerBalancesWhateverHappens(t *testing.T) {
	for seed := range int64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			before := openFiles()
			history(t, rand.New(rand.NewSource(seed)))
			for fd, target := range leaked(before) {
				t.Errorf("leaked %s: %s", fd, target)
			}
		})
	}
}

func history(t *testing.T, r *rand.Rand) {
	var policy dispatch.Policy = dispatch.RoundRobin()
	if r.Intn(3) == 0 {
		policy = nonsense{r}
	}
	d, fars := newTestDispatcher(t, policy, 3)
	ledgers := []*ledger{d.serving}
	targets := slices.Clone(fars)
	acknowledged := 0
	nextSlot := 4
	serve := func() {
		var ws []*window
		for _, a := range targets {
			ws = append(ws, a.w)
		}
		d.serve(ws, ledgers[len(ledgers)-1])
	}
	born := func() *far {
		a := newFar(t, d, nextSlot, ledgers[len(ledgers)-1])
		nextSlot++
		fars = append(fars, a)
		return a
	}
	catchUp := func(a *far) {
		for {
			d.mu.Lock()
			n := len(a.w.unacked)
			d.mu.Unlock()
			if len(a.got) >= n {
				return
			}
			a.recv()
		}
	}
	some := func(a *far) []uint64 {
		ids := slices.Clone(a.got)
		r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		return ids[:r.Intn(len(ids)+1)]
	}
	for range 300 {
		a := fars[r.Intn(len(fars))]
		if a.w.gone {
			continue
		}
		switch r.Intn(12) {
		case 0, 1, 2, 3:
			accept(t, d, 1+r.Intn(acceptBatch))
		case 4, 5, 6:
			catchUp(a)
			if ids := some(a); len(ids) > 0 {
				a.ack(ids...)
				acknowledged += len(ids)
			}
		case 7:
			catchUp(a)
			if ids := some(a); len(ids) > 0 {
				a.nack(ids...)
			}
		case 8: // time passes
			d.mu.Lock()
			for _, a := range fars {
				a.w.blocked = time.Time{}
			}
			d.mu.Unlock()
			d.retry()
		case 9:
			d.stall(a.w, r.Intn(2) == 0)
		case 10: // death and respawn
			i := slices.Index(targets, a)
			a.die()
			d.abandon(a.w, r.Intn(3))
			if i >= 0 {
				targets[i] = born()
				serve()
			}
		case 11: // a reload
			if r.Intn(4) == 0 {
				ledgers = append(ledgers, newLedger(len(ledgers)+1))
				targets = []*far{born(), born()}
				serve()
			}
		}

		d.mu.Lock()
		seen := map[uint64]bool{}
		count := func(hs []held) {
			for _, h := range hs {
				if seen[h.id] {
					t.Fatalf("connection %d is in two places", h.id)
				}
				seen[h.id] = true
			}
		}
		count(d.queue)
		var ws []*window
		for _, a := range fars {
			count(a.w.unacked)
			ws = append(ws, a.w)
			if n := len(a.w.unacked); n > a.w.size {
				t.Fatalf("worker %d holds %d", a.w.slot, n)
			}
		}
		if n := len(seen) + acknowledged; n != int(d.nextID-1) {
			t.Fatalf("%d accepted, %d accounted for", d.nextID-1, n)
		}
		for _, l := range ledgers {
			var own []*window
			for _, w := range ws {
				if w.ledger == l {
					own = append(own, w)
				}
			}
			checkLedger(t, l, d.pending(l, own))
		}
		if d.reserved != 0 {
			t.Fatalf("%d reserved", d.reserved)
		}
		d.mu.Unlock()
	}
	for _, a := range fars {
		a.die()
		a.w.conn.Close()
	}
	closeAll(d, fars)
}

// TestDispatchFromManySides is for the race detector, and for lost wakeups:
// it ends only if every connection is acknowledged.
func TestDispatchFromManySides(t *testing.T) {
	const loops, each = 3, 200
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 3)
	var workers, accepts sync.WaitGroup
	for _, a := range fars {
		workers.Go(func() {
			for n := 0; ; n++ {
				f, err := a.conn.Recv()
				if err != nil {
					return
				}
				var b []byte
				for i, fd := range f.Files {
					id, _ := connEntry(f.Payload, i)
					b = appendID(b, id)
					unix.Close(fd)
				}
				settle := d.ack
				if n%10 == 9 {
					settle = d.nack
				}
				if err := settle(a.w, b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range loops {
		accepts.Go(func() {
			for left := each; left > 0; {
				room := d.Reserve(min(left, acceptBatch))
				if room == 0 {
					select {
					case <-d.wait():
					case <-time.After(patience):
						t.Error("an accept loop was never woken")
						return
					}
					continue
				}
				var fds []int
				for range (room + 1) / 2 {
					fds = append(fds, socket(t))
				}
				if n := room - len(fds); n > 0 {
					d.Refund(n)
				}
				d.take(fds, 0)
				left -= len(fds)
			}
		})
	}
	accepts.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		n := d.serving.acknowledged
		d.mu.Unlock()
		if n == loops*each {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d acknowledged, queue %v", n, loops*each, d.queued())
		}
	}
	for _, a := range fars {
		_ = a.w.conn.Shutdown()
	}
	workers.Wait()
	checkLedger(t, d.serving, 0)
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	base := socket(t)
	defer unix.Close(base)
	a := fars[0]
	fds := make([]int, acceptBatch)
	ids := make([]byte, 0, acceptBatch*idSize)
	round := func() {
		for i := range fds {
			fds[i], _ = unix.Dup(base)
		}
		if d.Reserve(len(fds)) != len(fds) {
			t.Fatal("no room")
		}
		d.take(fds, 0)
		f, err := a.conn.Recv()
		if err != nil {
			t.Fatal(err)
		}
		ids = ids[:0]
		for i, fd := range f.Files {
			unix.Close(fd)
			id, _ := connEntry(f.Payload, i)
			ids = appendID(ids, id)
		}
		if err := d.ack(a.w, ids); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		round()
	}
	if n := testing.AllocsPerRun(200, round); n != 0 {
		t.Errorf("%v allocations for %d connections, want 0", n, acceptBatch)
	}
}

func TestWhatNobodyTookIsRefusedAtTheEnd(t *testing.T) {
	d, _ := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	d.Reserve(2)
	d.close(true)
	fds := []int{socket(t), socket(t)}
	d.take(fds, 0)
	if n := d.refuseAll(); n != 2 || d.serving.refused[refusedStopped] != 2 {
		t.Errorf("%d refused, ledger %v", n, d.serving.refused)
	}
	checkLedger(t, d.serving, 0)
}

func TestAgeIsOfTheOldestAndCanBeForgotten(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	w := fars[0].w
	if n := d.age(w, time.Now()); n != 0 {
		t.Errorf("age %v of nothing", n)
	}
	accept(t, d, 1)
	start := w.unacked[0].sent
	if n := d.age(w, start.Add(time.Minute)); n != time.Minute {
		t.Errorf("age %v, want a minute", n)
	}
	d.touchAges(start.Add(time.Minute))
	if n := d.age(w, start.Add(time.Minute)); n != 0 {
		t.Errorf("age %v after it was forgotten", n)
	}
}

// tcpPair returns a client and the descriptor of the accepted connection.
func tcpPair(t testing.TB) (*net.TCPConn, int) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	_ = client.SetDeadline(time.Now().Add(patience))
	s, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	return client, detach(t, s)
}

// detach returns the descriptor of c in place of c.
func detach(t testing.TB, c interface {
	syscall.Conn
	io.Closer
}) int {
	t.Helper()
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(old uintptr) { fd, err = fcntlDup(int(old)) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
