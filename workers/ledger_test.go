//go:build unix

package workers

import (
	"fmt"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
	"github.com/baton-go/baton/workers/ipc"

	"github.com/baton-go/baton/internal/leaktest"
)

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
			before := leaktest.OpenFiles()
			history(t, rand.New(rand.NewSource(seed)))
			for fd, target := range leaktest.Leaked(before) {
				t.Errorf("leaked %s: %s", fd, target)
			}
		})
	}
}

func history(t *testing.T, r *rand.Rand) {
	var policy dispatch.Policy = dispatch.RoundRobin()
	if r.Intn(3) == 0 {
		policy = nonsense{rand.New(rand.NewSource(r.Int63()))}
	}
	d, fars := newTestDispatcher(t, policy, 3)
	ledgers := []*ledger{d.serving}
	targets := slices.Clone(fars)
	acknowledged := 0
	nextSlot := 4
	adopts := []bool{true, false}
	serve := func() {
		var ws []*window
		for _, a := range targets {
			ws = append(ws, a.w)
		}
		d.serve(ws, ledgers[len(ledgers)-1], slices.Clone(adopts), rule{})
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
		d.mu.Lock()
		gone := a.w.gone
		d.mu.Unlock()
		if gone {
			continue
		}
		switch r.Intn(14) {
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
		case 12: // one is handed off
			a.w.dispatched++ // that came otherwise
			m := Moved{Handoff: true, State: []byte("s")}
			if err := d.giveBack(returning{w: a.w, id: r.Uint64(), fd: socket(t), listener: uint16(r.Intn(3)), moved: m}); err != nil {
				t.Fatal(err)
			}
		case 13:
			catchUp(a)
			if ids := some(a); len(ids) > 0 {
				a.unadopted(ids...)
			}
		case 11: // a reload
			if r.Intn(4) == 0 {
				adopts[0], adopts[1] = r.Intn(2) == 0, r.Intn(2) == 0
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
		refused := 0
		for _, l := range ledgers {
			for _, n := range l.refused {
				refused += int(n)
			}
		}
		for _, h := range d.queue {
			if d.lost(h) != "" {
				t.Fatalf("connection %d waits for an adopter, and there is none", h.id)
			}
		}
		if n := len(seen) + acknowledged + refused; n != int(d.nextID-1) {
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
	// The far end only makes room: what it allocates is no matter here, so it
	// reads bytes, and the kernel closes the descriptors that came with them.
	f, err := fars[0].conn.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, w := int(f.Fd()), fars[0].w
	if err := unix.SetNonblock(end, true); err != nil {
		t.Fatal(err)
	}
	drop := make([]byte, ipc.MaxPayload)
	fds := make([]int, acceptBatch)
	ids := make([]byte, 0, acceptBatch*idSize)
	id := uint64(0)
	round := func() {
		for i := range fds {
			fds[i], _ = unix.Dup(base)
		}
		if d.Reserve(len(fds)) != len(fds) {
			t.Fatal("no room")
		}
		d.take(fds, 0)
		for n := 1; n > 0; {
			n, _ = unix.Read(end, drop)
		}
		ids = ids[:0]
		for range fds {
			id++
			ids = appendID(ids, id)
		}
		if err := d.ack(w, ids); err != nil {
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
