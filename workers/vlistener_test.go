//go:build unix

package workers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"

	"github.com/baton-go/baton/internal/leaktest"
)

// master is the master's end of a worker that lives in this process.
type master struct {
	t    *testing.T
	conn *ipc.Conn
	w    *Worker
	fds  map[uint64]int // its copies
}

// newMaster returns a worker past its welcome, with listeners of these
// networks, and the other end of it.
func newMaster(t *testing.T, networks ...string) (*master, *Worker) {
	t.Helper()
	near, f, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ipc.NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	page, err := anonFile("page", pageSize)
	if err != nil {
		t.Fatal(err)
	}
	counters, err := mapCounters(page)
	if err != nil {
		t.Fatal(err)
	}
	page.Close()
	w := &Worker{
		id: ID{1, 1}, conn: conn, counters: counters,
		returns: newReturns(), drain: make(chan DrainOrder, 1), orphaned: make(chan struct{}), ended: make(chan struct{}),
	}
	for i, network := range networks {
		info := ListenerInfo{Name: fmt.Sprint("l", i), Network: network, Address: "127.0.0.1:80"}
		w.listeners = append(w.listeners, newListener(w, info, 0))
	}
	m := &master{t: t, conn: near, w: w, fds: map[uint64]int{}}
	_ = near.SetReadDeadline(time.Now().Add(patience))
	go w.receive()
	t.Cleanup(func() {
		near.Close()
		<-w.ended
		conn.Close()
		for _, l := range w.listeners {
			l.Close()
		}
		for _, fd := range m.fds {
			unix.Close(fd)
		}
		_ = unix.Munmap(counters.mem)
	})
	return m, w
}

// send hands connections to the worker; the master keeps its copies.
func (m *master) send(listener uint16, conns map[uint64]int) {
	m.t.Helper()
	var b []byte
	var fds []int
	for id := uint64(0); len(fds) < len(conns); id++ {
		fd, ok := conns[id]
		if !ok {
			continue
		}
		b = appendConn(b, id, listener)
		fds = append(fds, fd)
		m.fds[id] = fd
	}
	if err := m.conn.Send(msgConn, b, fds); err != nil {
		m.t.Fatal(err)
	}
}

// tcp sends one connection and returns its client.
func (m *master) tcp(id uint64) *net.TCPConn {
	m.t.Helper()
	client, fd := tcpPair(m.t)
	m.send(0, map[uint64]int{id: fd})
	return client
}

// heard returns the type and ids of the worker's next message.
func (m *master) heard() (uint8, []uint64) {
	m.t.Helper()
	f, err := m.conn.Recv()
	if err != nil {
		m.t.Fatal(err)
	}
	var ids []uint64
	if f.Type == msgAck || f.Type == msgNack || f.Type == msgUnadopted {
		n, err := idCount(f.Payload)
		if err != nil {
			m.t.Fatal(err)
		}
		for i := range n {
			ids = append(ids, idAt(f.Payload, i))
		}
	}
	return f.Type, ids
}

func (m *master) wants(typ uint8, ids ...uint64) {
	m.t.Helper()
	got, gotIDs := m.heard()
	if got != typ {
		m.t.Fatalf("message %d %v, want %d %v", got, gotIDs, typ, ids)
	}
	want(m.t, fmt.Sprint("message ", typ), gotIDs, ids)
}

// synced returns once the worker has handled everything sent before.
func (m *master) synced() {
	m.t.Helper()
	if err := m.conn.Send(msgPing, nil, nil); err != nil {
		m.t.Fatal(err)
	}
	m.wants(msgPong)
}

func mustAccept(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAcknowledgedBeforeAcceptReturnsAndAByteIsRead(t *testing.T) {
	m, w := newMaster(t, "tcp")
	client := m.tcp(7)
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	m.synced() // it is in the queue, and nothing was said of it
	c := mustAccept(t, w.Listeners()[0])
	// The acknowledgement is in the socket already, so this waits for nothing.
	_ = m.conn.SetReadDeadline(time.Now().Add(patience))
	m.wants(msgAck, 7)
	if consumed(m.fds[7]) != 0 {
		t.Error("it was read from before the first Read")
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
		t.Errorf("read %q, %v", buf, err)
	}
}

func TestBatchesAreAcknowledgedInOneMessage(t *testing.T) {
	m, w := newMaster(t, "tcp")
	conns := map[uint64]int{}
	var first []uint64
	for id := range uint64(acceptBatch + 2) {
		_, conns[id] = tcpPair(t)
		if len(first) < acceptBatch {
			first = append(first, id)
		}
	}
	m.send(0, conns)
	m.synced()
	l := w.Listeners()[0]
	for i := range conns {
		mustAccept(t, l)
		_ = i
	}
	m.wants(msgAck, first...)
	m.wants(msgAck, acceptBatch, acceptBatch+1)
}

func TestAskedIsClosedByTheFirstAccept(t *testing.T) {
	m, w := newMaster(t, "tcp")
	l := w.Listeners()[0]
	select {
	case <-l.Asked():
		t.Fatal("asked before Accept")
	default:
	}
	m.tcp(1)
	mustAccept(t, l)
	<-l.Asked()
}

func TestClosingAListenerSendsBackWhatWaits(t *testing.T) {
	m, w := newMaster(t, "tcp", "tcp")
	conns := map[uint64]int{}
	for id := range uint64(3) {
		_, conns[id] = tcpPair(t)
	}
	m.send(0, conns)
	m.synced()
	l := w.Listeners()[0]
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m.wants(msgNack, 0, 1, 2)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	m.tcp(9) // and what comes later
	m.wants(msgNack, 9)
	// The other listener goes on.
	_, fd := tcpPair(t)
	m.send(1, map[uint64]int{10: fd})
	mustAccept(t, w.Listeners()[1])
	m.wants(msgAck, 10)
}

func TestListenerThatDoesNotExist(t *testing.T) {
	m, _ := newMaster(t, "tcp")
	_, fd := tcpPair(t)
	m.send(5, map[uint64]int{1: fd})
	m.wants(msgNack, 1)
}

func TestMalformedConnectionMessageIsDropped(t *testing.T) {
	m, w := newMaster(t, "tcp")
	before := len(leaktest.OpenFiles())
	fd := socket(t)
	for _, payload := range [][]byte{nil, appendConn(nil, 1, 0)[:7], append(appendConn(nil, 1, 0), appendConn(nil, 2, 0)...)} {
		if err := m.conn.Send(msgConn, payload, []int{fd}); err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(fd)
	m.synced()
	if n := len(leaktest.OpenFiles()); n > before {
		t.Errorf("%d descriptors more", n-before)
	}
	if n := len(w.listeners[0].waiting); n != 0 {
		t.Errorf("%d connections wait", n)
	}
}

func TestDrainEndsListenersOnceEmpty(t *testing.T) {
	m, w := newMaster(t, "tcp")
	l := w.Listeners()[0]
	m.tcp(1)
	m.tcp(2)
	for _, o := range []DrainOrder{{Timeout: 9, Reason: "first"}, {Timeout: 5, Reason: "second"}} {
		if err := m.conn.Send(msgDrain, encode(o), nil); err != nil {
			t.Fatal(err)
		}
	}
	m.synced()
	if o := <-w.Drain(); o.Reason != "second" || o.Timeout != 5 {
		t.Errorf("order %+v, want the latest", o)
	}
	w.Finish()
	select {
	case <-l.Empty():
		t.Fatal("empty with two connections waiting")
	default:
	}
	mustAccept(t, l)
	mustAccept(t, l)
	<-l.Empty()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end: %v", err)
	}
}

func TestEndOfTheMasterOrphansAndFinishWakesAccept(t *testing.T) {
	m, w := newMaster(t, "tcp", "unix")
	failed := make(chan error, 2)
	for _, l := range w.Listeners() {
		go func() {
			_, err := l.Accept()
			failed <- err
		}()
		<-l.Asked()
	}
	_ = m.conn.Shutdown()
	<-w.Orphaned()
	w.Finish()
	for _, l := range w.Listeners() {
		<-l.Empty()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
	}
}

func TestCommitAndReadyMakeServing(t *testing.T) {
	m, w := newMaster(t)
	if err := m.conn.Send(msgCommit, nil, nil); err != nil {
		t.Fatal(err)
	}
	m.synced()
	if w.Serving() {
		t.Error("serving before ready")
	}
	w.ready = true
	if !w.Serving() {
		t.Error("not serving")
	}
	w.Failed(strings.Repeat("\x01", 3*ipc.MaxPayload)) // grows in JSON
	f, err := m.conn.Recv()
	if err != nil || f.Type != msgFailed {
		t.Fatal(f.Type, err)
	}
	if why, err := decode[failure](f.Payload); err != nil || len(why.Reason) < 1000 {
		t.Errorf("reason of %d bytes, %v", len(why.Reason), err)
	}
	told := Drained{Finished: Tally{"http1": 3}, Cut: Tally{CutDeadline: 1}}
	w.Drained(told)
	f, err = m.conn.Recv()
	if r, derr := decode[Drained](f.Payload); err != nil || derr != nil || !reflect.DeepEqual(r, told) {
		t.Errorf("report %+v, %v, %v", r, err, derr)
	}
	if err := w.Leave(); err != nil {
		t.Fatal(err)
	}
	m.wants(msgLeave)
}

func TestListenerAddress(t *testing.T) {
	for _, tt := range []struct{ network, address, want string }{
		{"tcp", "127.0.0.1:80", "127.0.0.1:80"}, {"tcp", "[::1]:80", "[::1]:80"},
		{"unix", "/run/a.sock", "/run/a.sock"}, {"tcp", "nonsense", ":0"},
	} {
		l := newListener(nil, ListenerInfo{Name: "n", Network: tt.network, Address: tt.address}, 0)
		if got := l.Addr(); got.String() != tt.want || got.Network() != tt.network {
			t.Errorf("%s %s: %v of %s", tt.network, tt.address, got, got.Network())
		}
	}
}

// A client that has reset its connection has no address any more; applications
// rely on there being one.
func TestResetConnectionIsNotAccepted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := s.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.Close()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v", err)
	}
	fd, err := fcntlDup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	counts := &counters{open: new(atomic.Int64), total: new(atomic.Int64), ended: make(chan struct{}, 1)}
	at := newListener(&Worker{counters: counts}, ListenerInfo{Network: "tcp"}, 0)
	if c, err := newConn(at, incoming{fd: fd}); err == nil {
		t.Errorf("a connection with address %v was made of it", c.RemoteAddr())
	}
	if n := counts.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}
