//go:build unix

package workers

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
)

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
	d.serve([]*window{b.w}, next, nil, rule{})
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
