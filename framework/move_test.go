package framework

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baton-go/baton/workers"
)

// mover is a server whose connections can be given away.
type mover struct {
	t    *testing.T
	l    *life
	s    *httpServer
	ln   net.Listener
	over chan struct{} // the drain is
}

// newMover serves with what give says to each attempt.
func newMover(t *testing.T, give func(attempt int, c net.Conn) workers.Reception) *mover {
	t.Helper()
	m := &mover{t: t, l: newLife(func() int { return 0 }), over: make(chan struct{})}
	var attempts atomic.Int64
	m.l.give = func(_ net.Listener, c net.Conn, _ workers.Moved) workers.Reception {
		return give(int(attempts.Add(1)), c)
	}
	m.s = newHTTPServer(m.l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }), nil, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.ln = ln
	var run sync.WaitGroup
	run.Go(func() { _ = m.s.run(ln) })
	t.Cleanup(func() {
		m.l.cutNow()
		ln.Close()
		run.Wait()
		if m.l.begun {
			await(t, m.over, "the end of the drain")
		}
	})
	return m
}

// idle returns a connection on which a request has been answered.
func (m *mover) idle() *client {
	m.t.Helper()
	c := dial(m.t, m.ln.Addr().String())
	m.ask(c, false)
	return c
}

// ask requires an answer, and that it tells to close, or not.
func (m *mover) ask(c *client, closing bool) {
	m.t.Helper()
	c.send(get)
	if resp, body := c.answer(); body != "hello" || resp.Close != closing {
		m.t.Fatalf("answer %q, close %t; want close %t", body, resp.Close, closing)
	}
}

func (m *mover) drain(timeout, grace time.Duration) {
	m.l.drain(workers.DrainOrder{Timeout: timeout, Grace: grace, Move: true})
	m.ln.Close()
	go func() {
		defer close(m.over)
		m.s.drain()
	}()
}

// While nobody has room the connection is served here, as if there were no
// drain, and offered again.
func TestConnectionIsServedUntilSomebodyHasRoom(t *testing.T) {
	refused := make(chan struct{}, 100)
	var room atomic.Bool
	taken := make(chan net.Conn, 1)
	m := newMover(t, func(_ int, c net.Conn) workers.Reception {
		if room.Load() {
			taken <- c
			return workers.Taken
		}
		refused <- struct{}{}
		return workers.NotNow
	})
	c := m.idle()
	m.drain(time.Hour, 0)
	for range 3 {
		await(t, refused, "an attempt to move")
		m.ask(c, false)
	}
	room.Store(true)
	select {
	case sc := <-taken:
		defer sc.Close()
		_, _ = io.WriteString(sc, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!")
		if _, body := c.answer(); body != "!" {
			t.Errorf("from the next server: %q", body)
		}
	case <-time.After(patience):
		t.Fatal("not moved")
	}
}

// One of many is enough to learn that there is no room.
func TestNoRoomIsNotTriedWithEveryConnection(t *testing.T) {
	var attempts atomic.Int64
	refused := make(chan struct{}, 10_000)
	m := newMover(t, func(int, net.Conn) workers.Reception {
		attempts.Add(1)
		refused <- struct{}{}
		return workers.NotNow
	})
	var all []*client
	for range 12 * atOnce {
		all = append(all, m.idle())
	}
	m.drain(time.Hour, 0)
	await(t, refused, "an attempt to move")
	for _, c := range all {
		m.ask(c, false)
	}
	// So many rounds there can have been: of atOnce, or one more that was begun.
	if n, most := attempts.Load(), int64(2*atOnce)*(2+int64(time.Since(m.begun())/minPause)); n > most {
		t.Errorf("%d attempts, want at most %d", n, most)
	}
}

func (m *mover) begun() time.Time {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	return m.l.deadline.Add(-time.Hour)
}

// What cannot move has the grace from when that was known: until then no answer
// told its client to close.
func TestGraceBeginsWhenConnectionsCannotMove(t *testing.T) {
	const grace = 2 * time.Second
	tried := make(chan struct{}, 10_000)
	m := newMover(t, func(int, net.Conn) workers.Reception {
		tried <- struct{}{}
		return workers.NotNow
	})
	var all []*client
	for range 4 * atOnce {
		all = append(all, m.idle())
	}
	m.drain(time.Hour, grace)
	await(t, m.l.graceUp, "the end of the first grace")
	await(t, tried, "an attempt to move")
	m.l.drain(workers.DrainOrder{Timeout: time.Hour, Grace: grace}) // as by a stop
	<-time.After(grace / 2)
	for _, c := range all {
		m.ask(c, true)
	}
	await(t, m.over, "the end of the drain")
}

func TestConnectionThatIsKeptIsToldToClose(t *testing.T) {
	kept := make(chan struct{}, 100)
	m := newMover(t, func(int, net.Conn) workers.Reception {
		kept <- struct{}{}
		return workers.Kept
	})
	c := m.idle()
	other := newHTTPServer(m.l, http.NotFoundHandler(), nil, nil)
	m.drain(time.Hour, time.Hour)
	await(t, kept, "an attempt to move")
	m.ask(c, true)
	c.ended()
	if !other.moving() {
		t.Error("the connections of another listener do not move either")
	}
}

// Nobody ever has room: idle connections are closed in peace before the
// deadline, and one that goes on is told.
func TestConnectionsThatNobodyTakesEndBeforeTheDeadline(t *testing.T) {
	m := newMover(t, func(int, net.Conn) workers.Reception { return workers.NotNow })
	busy, quiet := m.idle(), m.idle()
	const timeout, grace = 3 * time.Second, time.Second
	m.drain(timeout, grace)
	for told := false; !told; {
		busy.send(get)
		resp, body := busy.answer()
		if body != "hello" {
			t.Fatalf("answer %q", body)
		}
		told = resp.Close
	}
	busy.ended()
	quiet.ended()
	select {
	case <-m.l.cut:
		t.Error("the connections were cut")
	default:
	}
	await(t, m.over, "the end of the drain")
}
