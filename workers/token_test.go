//go:build unix

package workers

import (
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
	"github.com/baton-go/baton/workers/ipc"
)

// token returns both ends of one; the reader's is closed with the test.
func token(t *testing.T) (*os.File, int) {
	t.Helper()
	mine, theirs, err := newToken()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mine.Close() })
	return mine, theirs
}

func TestTokenSaysWhoHasTheConnection(t *testing.T) {
	mine, theirs := token(t)
	claim(theirs)
	if !claimed(mine) {
		t.Error("it was claimed")
	}
	mine, theirs = token(t)
	copied, err := fcntlDup(theirs)
	if err != nil {
		t.Fatal(err)
	}
	incoming{fd: theirs}.close()
	time.AfterFunc(10*time.Millisecond, func() { unix.Close(copied) })
	if claimed(mine) {
		t.Error("all that could have claimed it are gone")
	}
	mine, theirs = token(t)
	began := time.Now()
	if !claimed(mine) || time.Since(began) < claimTime {
		t.Error("it is let go when it takes too long, and no sooner")
	}
	mine.Close()
	claim(theirs) // who has let go hears nothing
	claim(0)      // there is none

	// Whoever gave it may have filled it, and made it one that blocks.
	_, theirs = token(t)
	for unix.Sendto(theirs, make([]byte, 1024), unix.MSG_DONTWAIT, nil) == nil {
	}
	claim(theirs)
}

// What the master is sent it passes on, and keeps until it is acknowledged.
func TestTokenTravelsWithItsConnection(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	a := newDrainingFar(t, d)
	_, conn := connected(t)
	mine, theirs := token(t)
	a.fds[7] = conn
	sent, err := fcntlDup(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.p.returned(a.c, ipc.Frame{Type: msgReturn, Payload: appendMoved(nil, 7, 0, Moved{}), Files: []int{sent, theirs}}); err != nil {
		t.Fatal(err)
	}
	a.answered(Taken, 1)
	next := func(b *far) (uint64, int) {
		t.Helper()
		f, err := b.conn.Recv()
		if err != nil || f.Type != msgMoved || len(f.Files) != 2 || !isToken(f.Files[1]) {
			t.Fatalf("message %d with %d files, %v; want a connection and its token", f.Type, len(f.Files), err)
		}
		id, _, _, err := parseMoved(f.Payload)
		if err != nil {
			t.Fatal(err)
		}
		b.fds[id] = f.Files[0]
		return id, f.Files[1]
	}
	id, copied := next(fars[0])
	unix.Close(copied) // it has no room
	fars[0].nack(id)
	id, copied = next(fars[1])
	claim(copied)
	if !claimed(mine) {
		t.Error("the second worker has claimed it")
	}
	fars[1].ack(id)
	_ = mine.SetReadDeadline(time.Now().Add(patience))
	if _, err := mine.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the acknowledgement: %v, want no copy of the token", err)
	}

	// Files that are none of it are a breach.
	_, conn = connected(t)
	_, other := tcpPair(t)
	if err := a.p.returned(a.c, ipc.Frame{Type: msgReturn, Payload: appendMoved(nil, 8, 0, Moved{}), Files: []int{conn, other}}); err == nil {
		t.Error("a client's connection for a token was taken")
	}
}

// A connection is claimed when it is acknowledged, and not when it arrives.
func TestConnectionIsClaimedWhenItIsAccepted(t *testing.T) {
	m, w := newMaster(t, "tcp")
	give := func(id uint64) *os.File {
		t.Helper()
		_, fd := tcpPair(t)
		m.fds[id] = fd
		mine, theirs := token(t)
		defer unix.Close(theirs)
		if err := m.conn.Send(msgMoved, appendMoved(nil, id, 0, Moved{}), []int{fd, theirs}); err != nil {
			t.Fatal(err)
		}
		return mine
	}
	first, second := give(1), give(2)
	m.synced()
	_ = first.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := first.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("before it is accepted: %v", err)
	}
	mustAccept(t, w.Listeners()[0])
	for _, mine := range []*os.File{first, second} { // a batch
		if !claimed(mine) {
			t.Error("it is accepted, and not claimed")
		}
	}
	mustAccept(t, w.Listeners()[0])
	third := give(3)
	m.wants(msgAck, 1, 2)
	m.synced()
	w.Listeners()[0].Close()
	m.wants(msgNack, 3)
	if claimed(third) {
		t.Error("it was sent back, and claimed")
	}
}

// The master dies between the receipt and passing the connection on.
func TestConnectionThatNobodyHasIsTheGiversStill(t *testing.T) {
	for name, c := range map[string]struct {
		claims bool
		want   Reception
	}{"nobody": {false, Kept}, "another worker": {true, Taken}} {
		t.Run(name, func(t *testing.T) {
			m, w := newMaster(t, "tcp")
			m.tcp(1)
			conn := mustAccept(t, w.Listeners()[0])
			m.wants(msgAck, 1)
			result := make(chan Reception, 1)
			go func() { result <- w.Return(w.Listeners()[0], conn, Moved{}) }()
			f, err := m.conn.Recv()
			if err != nil || f.Type != msgReturn || len(f.Files) != 2 {
				t.Fatalf("message %d with %d files, %v", f.Type, len(f.Files), err)
			}
			id, _, _, err := parseMoved(f.Payload)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(f.Files[0])
			if err := m.conn.Send(msgReceipt, appendID(nil, id), nil); err != nil {
				t.Fatal(err)
			}
			m.conn.Close()
			if c.claims {
				claim(f.Files[1])
			} else {
				unix.Close(f.Files[1])
			}
			if got := <-result; got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if _, err := conn.Write([]byte("x")); (err == nil) == c.claims {
				t.Errorf("write: %v", err)
			}
		})
	}
}
