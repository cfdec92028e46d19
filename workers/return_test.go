//go:build unix

package workers

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
	"github.com/baton-go/baton/workers/ipc"
)

// drainingFar is a worker of another generation, which drains and gives back.
type drainingFar struct {
	*far
	p *Pool
	c *child
}

func newDrainingFar(t *testing.T, d *dispatcher) *drainingFar {
	t.Helper()
	a := newFar(t, d, 1, newLedger(0))
	a.w.dispatched = 1 << 20 // it had many
	return &drainingFar{far: a, p: &Pool{d: d, acceptors: make([]*acceptor, 2)}, c: &child{window: a.w}}
}

// giveBack does what the reader does with a message of the worker, which keeps
// its own copy of the connection, as workers do.
func (a *drainingFar) giveBack(id uint64, fd int, m Moved) error {
	a.t.Helper()
	a.fds[id] = fd
	sent, err := fcntlDup(fd)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.p.returned(a.c, ipc.Frame{Type: msgReturn, Payload: appendMoved(nil, id, 0, m), Files: []int{sent}})
}

func (a *drainingFar) mustGiveBack(id uint64, fd int, m Moved) {
	a.t.Helper()
	if err := a.giveBack(id, fd, m); err != nil {
		a.t.Fatalf("connection %d is given back: %v", id, err)
	}
}

// answered takes the answers to n connections, each of which must be this.
func (a *far) answered(want Reception, n int) {
	a.t.Helper()
	for range n {
		f, err := a.conn.Recv()
		if err != nil {
			a.t.Fatal(err)
		}
		have := Kept
		switch {
		case f.Type == msgReceipt:
			have = Taken
		case f.Type != msgKeep || len(f.Payload) != idSize+1:
			a.t.Fatalf("answer %d %v", f.Type, f.Payload)
		case f.Payload[idSize] == keptLate:
			have = NotNow
		}
		if have != want {
			a.t.Fatalf("answer %v, want %v", have, want)
		}
	}
}

// moved takes a connection that comes from another worker.
func (a *far) moved() (id uint64, fd int, m Moved) {
	a.t.Helper()
	f, err := a.conn.Recv()
	if err != nil || f.Type != msgMoved || len(f.Files) != 1 {
		a.t.Fatalf("message %d with %d files, %v; want a moved connection", f.Type, len(f.Files), err)
	}
	id, _, m, err = parseMoved(f.Payload)
	if err != nil {
		a.t.Fatal(err)
	}
	a.fds[id] = f.Files[0]
	return id, f.Files[0], m
}

func openSocket(t *testing.T, fd int) bool {
	t.Helper()
	n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n > 0 || err == unix.EAGAIN
}

// connected returns both ends of a connection as descriptors.
func connected(t *testing.T) (client, conn int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0], fds[1]
}

func (d *dispatcher) returns() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.returning)
}

func TestReturnedConnectionGoesOnWithWhatTravels(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	a := newDrainingFar(t, d)
	client, conn := connected(t)
	a.mustGiveBack(7, conn, Moved{Unread: []byte("GE"), Idle: time.Minute, Posted: true})
	a.answered(Taken, 1)
	a.die()
	id, _, m := fars[0].moved()
	if string(m.Unread) != "GE" || m.Idle < time.Minute || m.New || !m.Posted {
		t.Errorf("moved %+v", m)
	}
	// One that has no room for it leaves it to another.
	fars[0].nack(id)
	id, _, again := fars[1].moved()
	if string(again.Unread) != "GE" || again.Idle < m.Idle || again.New || !again.Posted {
		t.Errorf("moved again %+v, first %+v", again, m)
	}
	if !openSocket(t, client) {
		t.Error("the client sees the end of the connection")
	}
	fars[1].ack(id)
	checkLedger(t, d.serving, 0)
}

// What nobody has room for is not the master's to hold: it would be served by
// nobody.
func TestReturnsWaitAtTheirWorkerForRoom(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	b := fars[0]
	for accept(t, d, acceptBatch) > 0 {
	}
	for len(b.got) < DefaultWindow {
		b.recv()
	}
	a := newDrainingFar(t, d)
	client, conn := connected(t)
	a.mustGiveBack(1, conn, Moved{})
	if n := d.returns(); n != 1 {
		t.Errorf("%d are being returned, want 1", n)
	}
	a.answered(NotNow, 1)
	if len(d.queued()) > 0 || a.w.returning != 0 || d.returns() != 0 {
		t.Errorf("queue %v, %d under way, %d waiting", d.queued(), a.w.returning, d.returns())
	}
	if !openSocket(t, client) {
		t.Error("the client sees the end of a connection that its worker keeps")
	}
	// Offered again, it goes on as soon as there is room.
	a.mustGiveBack(2, conn, Moved{})
	b.ack(b.got[0])
	a.answered(Taken, 1)
	b.moved()
	checkLedger(t, d.serving, DefaultWindow)
}

func TestReturnsWithNobodyServingStayWithTheirWorker(t *testing.T) {
	d, _ := newTestDispatcher(t, dispatch.RoundRobin(), 0)
	a := newDrainingFar(t, d)
	for id := range uint64(maxReturns) {
		_, conn := connected(t)
		a.mustGiveBack(id, conn, Moved{})
	}
	a.answered(NotNow, maxReturns)
	if len(d.queued()) > 0 {
		t.Errorf("queue %v", d.queued())
	}
}

// A refund of what accept loops had reserved is room, too.
func TestRefundIsRoomForReturns(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	d.Reserve(DefaultWindow)
	a := newDrainingFar(t, d)
	_, conn := connected(t)
	a.mustGiveBack(1, conn, Moved{})
	if n := d.returns(); n != 1 {
		t.Fatalf("%d are being returned, want 1", n)
	}
	d.Refund(DefaultWindow)
	if n := d.returns(); n != 0 {
		t.Errorf("%d are being returned after the refund", n)
	}
	a.answered(Taken, 1)
	fars[0].moved()
}

// A master at its limit of descriptors gets the message without the connection:
// that is load, and the worker keeps it.
func TestReturnThatFindsNoDescriptorStaysWithItsWorker(t *testing.T) {
	d, _ := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	a := newDrainingFar(t, d)
	err := a.p.returned(a.c, ipc.Frame{Type: msgReturn, Payload: appendMoved(nil, 1, 0, Moved{}), Missing: 1})
	if err != nil {
		t.Fatal(err)
	}
	a.answered(NotNow, 1)
	if a.w.returning != 0 {
		t.Errorf("%d under way", a.w.returning)
	}
}

func TestFreezeLeavesReturnsWithTheirWorkers(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	d.Reserve(DefaultWindow)
	a := newDrainingFar(t, d)
	for id := range uint64(2) {
		_, conn := connected(t)
		a.mustGiveBack(id, conn, Moved{})
	}
	d.close(true)
	_, conn := connected(t)
	a.mustGiveBack(3, conn, Moved{}) // read before the readers came to rest
	if d.returns() > 0 || len(d.queued()) > 0 {
		t.Errorf("%d are being returned and would be forgotten, queue %v", d.returns(), d.queued())
	}
	a.answered(NotNow, 3)
	d.close(false)
	d.Refund(DefaultWindow)
	a.mustGiveBack(4, conn, Moved{})
	a.answered(Taken, 1)
	fars[0].moved()
}

func TestStopAndRemovedListenersLeaveConnectionsForGood(t *testing.T) {
	d, _ := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	a := newDrainingFar(t, d)
	a.c.keys = []string{"of an earlier master"}
	_, conn := connected(t)
	a.mustGiveBack(1, conn, Moved{})
	a.answered(Kept, 1)
	a.c.keys = nil
	d.Reserve(DefaultWindow)
	_, conn = connected(t)
	a.mustGiveBack(2, conn, Moved{})
	d.noReturns()
	_, conn = connected(t)
	a.mustGiveBack(3, conn, Moved{})
	a.answered(Kept, 2)
	if a.w.returning != 0 || len(d.queued()) > 0 {
		t.Errorf("%d under way, queue %v", a.w.returning, d.queued())
	}
}

// A dead worker keeps nothing: what it was giving back is the master's, whether
// or not it heard so.
func TestReturnsOfTheDeadGoOn(t *testing.T) {
	for _, tt := range []struct {
		name string
		what func(d *dispatcher, a *drainingFar)
	}{
		{"noticed by its death", func(d *dispatcher, a *drainingFar) { d.abandon(a.w, 0); d.Refund(DefaultWindow) }},
		{"noticed by the receipt", func(d *dispatcher, a *drainingFar) { d.Refund(DefaultWindow) }},
		{"noticed by the refusal", func(d *dispatcher, a *drainingFar) { d.close(true); d.close(false); d.Refund(DefaultWindow) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
			d.Reserve(DefaultWindow)
			a := newDrainingFar(t, d)
			client, conn := connected(t)
			a.mustGiveBack(1, conn, Moved{Unread: []byte("G")})
			a.die()
			tt.what(d, a)
			if _, _, m := fars[0].moved(); string(m.Unread) != "G" {
				t.Errorf("moved %+v", m)
			}
			if !openSocket(t, client) {
				t.Error("the client sees the end of the connection")
			}
			if a.w.returning != 0 {
				t.Errorf("%d under way", a.w.returning)
			}
			checkLedger(t, d.serving, 1)
		})
	}
}

// A worker that gives back and reads no answer has a bounded number under way,
// and its master a bounded number of answers to get rid of.
func TestReturnsWithoutEndAreAProtocolError(t *testing.T) {
	d, _ := newTestDispatcher(t, dispatch.RoundRobin(), 0)
	a := newDrainingFar(t, d)
	a.fill()
	before := runtime.NumGoroutine()
	for _, full := range []func(){func() {}, func() { d.noReturns() }} {
		full()
		refused := 0
		for id := range uint64(10 * maxReturns) {
			_, conn := connected(t)
			err := a.giveBack(id, conn, Moved{})
			unix.Close(conn)
			delete(a.fds, id)
			if errors.Is(err, errProtocol) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if refused < 8*maxReturns {
			t.Errorf("%d of %d were refused", refused, 10*maxReturns)
		}
	}
	soon(t, "no more goroutines than answers", func() bool { return runtime.NumGoroutine()-before <= 3*maxReturns })
	// Once it reads, all is as before.
	go func() {
		for {
			if _, err := a.conn.Recv(); err != nil {
				return
			}
		}
	}()
	soon(t, "none is under way", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return a.w.returning == 0
	})
}

func soon(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// The workers of an earlier master have its order of the listeners.
func TestListenersKeepTheirNamesAcrossMasters(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	p := &Pool{d: d, acceptors: []*acceptor{{key: "a"}, {key: "b"}, {key: "new"}}, byKey: map[string]int{"a": 0, "b": 1, "new": 2}}
	theirs := []string{"b", "removed", "a"}
	b := fars[0]
	b.w.numbers = p.numbers(theirs)
	for ours, want := range []uint16{2, 0, noListener} {
		if got := b.w.number(uint16(ours)); got != want {
			t.Errorf("listener %d is sent as %d, want %d", ours, got, want)
		}
	}
	c := &child{window: b.w, keys: theirs}
	for n, want := range []int{1, -1, 0} {
		if got, known := p.listenerOf(c, uint16(n)); known != (want >= 0) || known && int(got) != want {
			t.Errorf("listener %d comes as %d, %t, want %d", n, got, known, want)
		}
	}
	if d.Reserve(1) != 1 {
		t.Fatal("no room")
	}
	d.take([]int{socket(t)}, 0)
	f, err := b.conn.Recv()
	if err != nil || f.Type != msgConn {
		t.Fatalf("message %d, %v", f.Type, err)
	}
	id, listener := connEntry(f.Payload, 0)
	b.fds[id] = f.Files[0]
	if listener != 2 {
		t.Errorf("a connection of listener 0 is sent as one of %d, want 2", listener)
	}
	a := newDrainingFar(t, d)
	_, conn := connected(t)
	a.mustGiveBack(1, conn, Moved{})
	if f, err = b.conn.Recv(); err != nil || f.Type != msgMoved {
		t.Fatalf("message %d, %v", f.Type, err)
	}
	id, listener, _, err = parseMoved(f.Payload)
	b.fds[id] = f.Files[0]
	if err != nil || listener != 2 {
		t.Errorf("a moved connection of listener 0 is sent as one of %d, %v; want 2", listener, err)
	}
}

// A worker at its limit of descriptors gets the message without the connection.
func TestMovedConnectionThatFindsNoDescriptorIsRefused(t *testing.T) {
	m, w := newMaster(t, "tcp")
	w.takeMoved(w.link.Load(), ipc.Frame{Type: msgMoved, Payload: appendMoved(nil, 5, 0, Moved{}), Missing: 1})
	if typ, ids := m.heard(); typ != msgNack || len(ids) != 1 || ids[0] != 5 {
		t.Errorf("it says %d of %v, want a refusal of 5", typ, ids)
	}
}

// gives makes a worker give back a connection that it has taken, and returns
// the message with which it does, and the result to come.
func (m *master) gives(w *Worker) (client *net.TCPConn, c net.Conn, id uint64, result chan Reception) {
	m.t.Helper()
	client = m.tcp(1)
	c, err := w.Listeners()[0].Accept()
	if err != nil {
		m.t.Fatal(err)
	}
	m.heard()
	result = make(chan Reception, 1)
	go func() { result <- w.Return(w.Listeners()[0], c, Moved{Unread: []byte("x")}) }()
	f, err := m.conn.Recv()
	if err != nil || f.Type != msgReturn || len(f.Files) != 2 {
		m.t.Fatalf("message %d with %d files, %v", f.Type, len(f.Files), err)
	}
	id, _, moved, err := parseMoved(f.Payload)
	if err != nil || string(moved.Unread) != "x" {
		m.t.Fatalf("%+v, %v", moved, err)
	}
	m.fds[100] = f.Files[0]
	claim(f.Files[1]) // it is not looked at before the receipt
	return client, c, id, result
}

func TestReturnEndsAsTheMasterSays(t *testing.T) {
	say := func(typ uint8, why ...byte) func(*master, uint64) {
		return func(m *master, id uint64) { _ = m.conn.Send(typ, append(appendID(nil, id), why...), nil) }
	}
	hangUp := func(m *master, _ uint64) { m.conn.Close() }
	for _, tt := range []struct {
		name string
		says []func(*master, uint64)
		want Reception
	}{
		{"receipt", []func(*master, uint64){say(msgReceipt)}, Taken},
		{"later", []func(*master, uint64){say(msgKeep, keptLate)}, NotNow},
		{"keep", []func(*master, uint64){say(msgKeep, keptUnserved)}, Kept},
		{"the end", []func(*master, uint64){hangUp}, Kept},
		{"a receipt and the end", []func(*master, uint64){say(msgReceipt), hangUp}, Taken},
		{"an answer to nothing", []func(*master, uint64){func(m *master, id uint64) { say(msgReceipt)(m, id+1) }, say(msgKeep, keptUnserved)}, Kept},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, w := newMaster(t, "tcp")
			client, c, id, result := m.gives(w)
			for _, f := range tt.says {
				f(m, id)
			}
			select {
			case got := <-result:
				if got != tt.want {
					t.Fatalf("got %d, want %d", got, tt.want)
				}
			case <-time.After(patience):
				t.Fatal("no result")
			}
			if len(w.returns.slots) > 0 || len(w.returns.pending) > 0 {
				t.Errorf("%d slots taken, %d pending", len(w.returns.slots), len(w.returns.pending))
			}
			if tt.want == Taken {
				if w.Open() != 0 || w.Moved() != 1 {
					t.Errorf("%d open, %d moved", w.Open(), w.Moved())
				}
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("the worker still has the connection")
				}
				return
			}
			if w.Open() != 1 || w.Moved() != 0 {
				t.Errorf("%d open, %d moved", w.Open(), w.Moved())
			}
			_, _ = c.Write([]byte("y"))
			if b, err := io.ReadAll(io.LimitReader(client, 1)); err != nil || string(b) != "y" {
				t.Errorf("the client reads %q, %v", b, err)
			}
			_ = c.Close()
		})
	}
}

func TestReturnWithoutAMasterIsKept(t *testing.T) {
	m, w := newMaster(t, "tcp")
	_, c, _, result := m.gives(w)
	m.conn.Close()
	<-result
	<-w.Orphaned()
	for range 50 { // it has the choice between a slot and the end
		if got := w.Return(w.Listeners()[0], c, Moved{}); got != Kept {
			t.Fatalf("got %d, want it kept", got)
		}
	}
	_ = c.Close()
}
