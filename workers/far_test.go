//go:build unix

package workers

import (
	"errors"
	"io"
	"net"
	"slices"
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

// recv takes one message of connections, moved ones included; others are skipped.
func (a *far) recv() []uint64 {
	a.t.Helper()
	for {
		f, err := a.conn.Recv()
		if err != nil {
			a.t.Fatalf("worker %d: %v, having %v", a.w.slot, err, a.got)
		}
		if f.Type == msgMoved {
			id, _, _, err := parseMoved(f.Payload)
			if err != nil || len(f.Files) != 1 {
				a.t.Fatalf("%d files with a moved connection, %v", len(f.Files), err)
			}
			a.fds[id], a.got = f.Files[0], append(a.got, id)
			return []uint64{id}
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
	d.serve(ws, l, nil, rule{})
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

// unadopted says that nothing here adopts them, which for some may be a lie.
func (a *far) unadopted(ids ...uint64) {
	a.t.Helper()
	lies := false
	a.w.d.mu.Lock()
	for _, h := range a.w.unacked {
		lies = lies || slices.Contains(ids, h.id) && (h.moved == nil || !h.moved.Handoff)
	}
	a.w.d.mu.Unlock()
	if err := a.w.d.unadopted(a.w, a.settle(ids...)); errors.Is(err, errProtocol) != lies {
		a.t.Fatalf("unadopted %v, of which some were not to be: %t, error %v", ids, lies, err)
	}
}
