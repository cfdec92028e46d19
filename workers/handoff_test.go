//go:build unix

package workers

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// handedOff is a handoff in progress.
type handedOff chan error

func handOff(c net.Conn, unread, state string) handedOff {
	done := make(handedOff, 1)
	go func() { done <- c.(loan).(handoffer).Handoff([]byte(unread), []byte(state)) }()
	return done
}

type handoffer interface {
	Handoff(unread, state []byte) error
}

func (h handedOff) wants(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-h:
		if !errors.Is(err, want) {
			t.Fatalf("handoff: %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatalf("handoff: no answer, want %v", want)
	}
}

// offered returns the connection that the worker offers next.
func (m *master) offered() (id uint64, fd int, moved Moved) {
	m.t.Helper()
	for {
		f, err := m.conn.Recv()
		if err != nil {
			m.t.Fatal(err)
		}
		if f.Type != msgReturn {
			continue
		}
		id, _, moved, err := parseMoved(f.Payload)
		if err != nil || len(f.Files) != 2 || !isConnection(f.Files[0]) || !isToken(f.Files[1]) {
			m.t.Fatalf("offered %+v with %d files, %v", moved, len(f.Files), err)
		}
		fd := f.Files[0]
		claim(f.Files[1]) // it is not looked at before the receipt
		m.t.Cleanup(func() { unix.Close(fd) })
		return id, fd, moved
	}
}

func (m *master) say(typ uint8, payload []byte) {
	m.t.Helper()
	if err := m.conn.Send(typ, payload, nil); err != nil {
		m.t.Fatal(err)
	}
}

// give hands a connection to the worker as from another one, and returns its
// client. The master's copy is closed with the rest.
func (m *master) give(id uint64, moved Moved) *net.TCPConn {
	m.t.Helper()
	client, fd := tcpPair(m.t)
	m.fds[id] = fd
	if err := m.conn.Send(msgMoved, appendMoved(nil, id, 0, moved), []int{fd}); err != nil {
		m.t.Fatal(err)
	}
	return client
}

func mustSay(t *testing.T, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func mustHear(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	defer c.SetReadDeadline(time.Time{})
	b := make([]byte, len(text))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v; want %q", b[:n], err, text)
	}
}

func TestHandedOffConnectionIsLeftAlone(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			m, w := newMaster(t, network)
			var client net.Conn
			var fd int
			if network == "tcp" {
				client, fd = tcpPair(t)
			} else {
				client, fd = unixPair(t)
			}
			m.send(0, map[uint64]int{1: fd})
			c := mustAccept(t, w.Listeners()[0])
			done := handOff(c, "unread", "state")
			id, fd, moved := m.offered()
			if !moved.Handoff || string(moved.Unread) != "unread" || string(moved.State) != "state" {
				t.Errorf("%+v", moved)
			}
			// Until the answer it is nobody's here.
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("Read: %d, %v", n, err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write: %v", err)
			}
			handOff(c, "", "").wants(t, net.ErrClosed)
			m.say(msgReceipt, appendID(nil, id))
			done.wants(t, nil)
			for range 2 {
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("Read: %d, %v", n, err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write: %v", err)
			}
			handOff(c, "", "").wants(t, net.ErrClosed)
			if w.Open() != 0 || w.Moved() != 1 {
				t.Errorf("%d open, %d moved", w.Open(), w.Moved())
			}
			mustSay(t, client, "ping")
			buf := make([]byte, 4)
			if n, err := unix.Read(fd, buf); n != 4 || err != nil {
				t.Errorf("the copy has %d bytes, %v", n, err)
			}
			if _, err := unix.Write(fd, []byte("pong")); err != nil {
				t.Error(err)
			}
			mustHear(t, client, "pong")
		})
	}
}

func TestConnectionThatIsKeptGoesOn(t *testing.T) {
	m, w := newMaster(t, "tcp")
	client := m.tcp(1)
	c := mustAccept(t, w.Listeners()[0])
	for why, want := range map[uint8]error{
		keptUnserved: ErrNobody, keptUnadopted: ErrNotAdopted, 99: ErrNobody,
	} {
		done := handOff(c, "", "")
		id, _, _ := m.offered()
		m.say(msgKeep, append(appendID(nil, id), why))
		done.wants(t, want)
		mustSay(t, client, "ping")
		mustHear(t, c, "ping")
		mustSay(t, c, "pong")
		mustHear(t, client, "pong")
	}
	if w.Open() != 1 || w.Moved() != 0 {
		t.Errorf("%d open, %d moved", w.Open(), w.Moved())
	}
}

func TestConnectionInUseIsNotHandedOff(t *testing.T) {
	m, w := newMaster(t, "tcp")
	m.tcp(1)
	c := mustAccept(t, w.Listeners()[0])
	inUse := func(what string) {
		t.Helper()
		for end := time.Now().Add(patience); c.(*tcpConn).inUse.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %s has begun", what)
			}
		}
		handOff(c, "", "").wants(t, ErrInUse)
	}
	done := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
	inUse("Read")
	_ = c.SetReadDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	go func() { _, err := c.Write(make([]byte, 64<<20)); done <- err }()
	inUse("Write")
	_ = c.SetWriteDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	handed := handOff(c, "", "")
	id, _, _ := m.offered()
	m.say(msgReceipt, appendID(nil, id))
	handed.wants(t, nil)
}

func TestHandoffIsLimited(t *testing.T) {
	m, w := newMaster(t, "tcp")
	got := adopting(w)
	client := m.give(1, Moved{Handoff: true, Unread: []byte("leftover")})
	c := got.next(t).c
	defer c.Close()
	mustHear(t, c, "left")
	for what, n := range map[string][2]int{
		"unread in all": {MaxUnread - 3, 0}, "unread": {MaxUnread + 1, 0}, "state": {0, MaxState + 1},
	} {
		t.Log("too much", what)
		handOff(c, string(make([]byte, n[0])), string(make([]byte, n[1]))).wants(t, ErrTooLarge)
	}
	mustHear(t, c, "over")
	mustSay(t, c, "done")
	mustHear(t, client, "done")
	m.tcp(2)
	c = mustAccept(t, w.Listeners()[0])
	c.Close()
	handOff(c, "", "").wants(t, net.ErrClosed)
}

// A Close while nobody knows yet whose the connection is: it ends it only if it
// is ours.
func TestCloseWaitsForTheAnswer(t *testing.T) {
	m, w := newMaster(t, "tcp")
	for id, taken := range map[uint64]bool{1: true, 2: false} {
		client := m.tcp(id)
		c := mustAccept(t, w.Listeners()[0])
		done := handOff(c, "", "")
		offer, fd, _ := m.offered()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if taken {
			m.say(msgReceipt, appendID(nil, offer))
			done.wants(t, nil)
			if _, err := unix.Write(fd, []byte("pong")); err != nil {
				t.Error(err)
			}
			mustHear(t, client, "pong")
		} else {
			m.say(msgKeep, append(appendID(nil, offer), keptUnserved))
			done.wants(t, ErrNobody)
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the client sees %v", err)
			}
		}
		if w.Open() != 0 {
			t.Errorf("%d open", w.Open())
		}
	}
}

// Without room it is offered again, until it is taken or never will be.
func TestHandoffIsOfferedAgain(t *testing.T) {
	m, w := newMaster(t, "tcp")
	for n, want := range []error{nil, ErrNotAdopted} {
		m.tcp(uint64(n))
		done := handOff(mustAccept(t, w.Listeners()[0]), "", "")
		for range 2 {
			id, _, _ := m.offered()
			m.say(msgKeep, append(appendID(nil, id), keptLate))
		}
		id, _, _ := m.offered()
		if want == nil {
			m.say(msgReceipt, appendID(nil, id))
		} else {
			m.say(msgKeep, append(appendID(nil, id), keptUnadopted))
		}
		done.wants(t, want)
	}
}

func TestHandoffsWaitForEachOther(t *testing.T) {
	m, w := newMaster(t, "tcp")
	var done []handedOff
	var offers []uint64
	for id := range uint64(maxReturns) {
		m.tcp(id)
		done = append(done, handOff(mustAccept(t, w.Listeners()[0]), "", ""))
		offer, _, _ := m.offered() // or they could come in another order
		offers = append(offers, offer)
	}
	m.tcp(maxReturns)
	c := mustAccept(t, w.Listeners()[0]).(loan)
	late := make(chan time.Time, 1)
	late <- time.Now()
	if err := w.offer(c, 0, Moved{Handoff: true}, late); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	last := handOff(c, "", "")
	m.say(msgReceipt, appendID(nil, offers[0]))
	done[0].wants(t, nil)
	id, _, _ := m.offered()
	m.say(msgReceipt, appendID(nil, id))
	last.wants(t, nil)
	// The end of the master ends the others, and what it had said before counts.
	m.say(msgReceipt, appendID(nil, offers[1]))
	_ = m.conn.Shutdown()
	done[1].wants(t, nil)
	for _, d := range done[2:] {
		d.wants(t, ErrNobody)
	}
	handOff(mustAdopt(t, w), "", "").wants(t, ErrNobody)
}

// mustAdopt makes a connection of w's without its master.
func mustAdopt(t *testing.T, w *Worker) net.Conn {
	t.Helper()
	_, fd := tcpPair(t)
	c, err := newConn(w.listeners[0], incoming{fd: fd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type adopted struct {
	c     net.Conn
	state []byte
}

type adoptions chan adopted

func (a adoptions) next(t *testing.T) adopted {
	t.Helper()
	select {
	case got := <-a:
		return got
	case <-time.After(patience):
		t.Fatal("nothing is adopted")
		return adopted{}
	}
}

func adopting(w *Worker) adoptions {
	got := make(adoptions, 8)
	w.Listeners()[0].OnAdopt(func(c net.Conn, state []byte) { got <- adopted{c, state} })
	return got
}

func TestAdoptedWithoutAnyAcceptAndAcknowledgedFirst(t *testing.T) {
	m, w := newMaster(t, "tcp")
	got := adopting(w)
	client := m.give(7, Moved{Handoff: true, Unread: []byte("hel"), State: []byte("state")})
	mustSay(t, client, "lo")
	m.wants(msgAck, 7) // before anybody has read
	if consumed(m.fds[7]) != 0 {
		t.Error("it was read from")
	}
	a := got.next(t)
	defer a.c.Close()
	if string(a.state) != "state" || w.Open() != 1 {
		t.Errorf("state %q, %d open", a.state, w.Open())
	}
	if _, moved := a.c.(interface{ Moved() (Moved, bool) }).Moved(); moved {
		t.Error("it would be taken for an idle HTTP connection")
	}
	select {
	case <-w.Listeners()[0].Asked():
		t.Error("Accept was called")
	default:
	}
	mustHear(t, a.c, "h")
	mustHear(t, a.c, "ello")

	// And on, with what has not been read.
	done := handOff(a.c, "again, ", "2")
	id, _, moved := m.offered()
	if string(moved.Unread) != "again, " || string(moved.State) != "2" {
		t.Errorf("%+v", moved)
	}
	m.say(msgReceipt, appendID(nil, id))
	done.wants(t, nil)
	m.give(8, Moved{Handoff: true, Unread: []byte("abcdef")})
	m.wants(msgAck, 8)
	a = got.next(t)
	mustHear(t, a.c, "abc")
	done = handOff(a.c, "c", "")
	id, _, moved = m.offered()
	if string(moved.Unread) != "cdef" {
		t.Errorf("unread %q", moved.Unread)
	}
	m.say(msgKeep, append(appendID(nil, id), keptUnserved))
	done.wants(t, ErrNobody)
	mustHear(t, a.c, "def")
	a.c.Close()
}

func TestLeftoversAreCopiedToo(t *testing.T) {
	m, w := newMaster(t, "tcp")
	got := adopting(w)
	client := m.give(1, Moved{Handoff: true, Unread: []byte("left")})
	mustSay(t, client, "over")
	_ = client.CloseWrite()
	a := got.next(t)
	defer a.c.Close()
	_ = a.c.SetDeadline(time.Now().Add(patience))
	var b bytes.Buffer
	if n, err := io.Copy(&b, a.c); err != nil || n != 8 || b.String() != "leftover" {
		t.Errorf("%d bytes, %v: %q", n, err, b.String())
	}
}

func TestWhatCannotBeAdoptedIsRefusedOrGoesBack(t *testing.T) {
	m, w := newMaster(t, "tcp")
	moved := Moved{Handoff: true}
	m.give(1, moved) // nobody adopts
	m.wants(msgUnadopted, 1)
	got := adopting(w)
	m.give(2, moved)
	m.wants(msgAck, 2)
	got.next(t).c.Close()
	if err := m.conn.Send(msgMoved, appendMoved(nil, 3, 0, moved), nil); err != nil { // the descriptor was lost on the way
		t.Fatal(err)
	}
	m.wants(msgNack, 3)
	w.Finish() // a drain of its own: the master does not know yet
	m.give(4, moved)
	m.wants(msgNack, 4)
	if w.Open() != 0 || len(got) > 0 {
		t.Errorf("%d open, %d adopted", w.Open(), len(got))
	}
}
