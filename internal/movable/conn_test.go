package movable

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// gated is a stream whose Read, when a deadline has ended it, waits for gate
// before it says so.
type gated struct {
	*net.TCPConn
	ended chan struct{} // holds one
	gate  chan struct{} // open when closed
}

func (g *gated) Read(p []byte) (int, error) {
	n, err := g.TCPConn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		select {
		case g.ended <- struct{}{}:
		default:
		}
		<-g.gate
	}
	return n, err
}

func serveGated(t *testing.T) (net.Conn, *Conn, *gated) {
	client, inner := pair(t)
	g := &gated{TCPConn: inner, ended: make(chan struct{}, 1), gate: make(chan struct{})}
	c := Wrap(g)
	start(t, &http.Server{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0:") }).serve(c)
	parkedSoon(t, c)
	return client, c, g
}

func TestPullGivenUpLeavesTheConnectionServed(t *testing.T) {
	client, c, g := serveGated(t)
	if _, ok := c.Pull(time.Millisecond); ok {
		t.Fatal("pulled, though the Read had not ended")
	}
	<-g.ended
	close(g.gate) // now it ends, by the deadline of a pull that is over
	answered(t, client)
	pullSoon(t, c)
}

// answered sends a request and reads the beginning of the answer.
func answered(t *testing.T, client net.Conn) {
	t.Helper()
	_, _ = io.WriteString(client, rehearsedGet)
	if _, err := io.ReadFull(client, make([]byte, 15)); err != nil {
		t.Errorf("no answer: %v", err)
	}
}

func TestCloseParked(t *testing.T) {
	t.Run("closes", func(t *testing.T) {
		client, c, g := serveGated(t)
		close(g.gate)
		if !c.CloseParked(patience) {
			t.Fatal("not closed")
		}
		if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
			t.Errorf("client read %q, %v", got, err)
		}
	})
	t.Run("leaves a request that is on its way", func(t *testing.T) {
		client, c, g := serveGated(t)
		go func() {
			<-g.ended
			_, _ = io.WriteString(client, rehearsedGet)
			close(g.gate)
		}()
		if c.CloseParked(patience) {
			t.Fatal("closed, though bytes had arrived")
		}
		if _, err := io.ReadFull(client, make([]byte, 15)); err != nil {
			t.Errorf("no answer: %v", err)
		}
	})
	t.Run("leaves a request that has begun", func(t *testing.T) {
		m := newMemory()
		c := Wrap(m)
		start(t, &http.Server{}, converse).serve(c)
		m.send("G")
		m.wait(func() bool { return m.waiting && len(m.in) == 0 })
		if c.CloseParked(patience) || m.isClosed() {
			t.Error("closed")
		}
	})
}

// eager is a stream on which bytes arrive at the very moment of the pull.
type eager struct {
	*memory
	bytes string
}

func (e *eager) SetReadDeadline(t time.Time) error {
	if t.Equal(past) {
		e.send(e.bytes)
		return nil
	}
	return e.memory.SetReadDeadline(t)
}

func TestBytesThatArriveDuringThePullTravel(t *testing.T) {
	s := start(t, &http.Server{}, converse)
	for n := 1; n <= len(rehearsedGet); n++ {
		e := &eager{memory: newMemory(), bytes: rehearsedGet[:n]}
		c := Wrap(e)
		s.serve(c)
		m := pullSoon(t, c)
		if string(m.Unread) != e.bytes || !m.New || m.Conn != Stream(e) {
			t.Fatalf("moved %+v, want the bytes %q", m, e.bytes)
		}
		if len(e.written()) > 0 || e.isClosed() {
			t.Fatalf("net/http wrote %q, or closed", e.written())
		}
	}
}

func TestNothingReachesAConnectionThatHasGone(t *testing.T) {
	m := newMemory()
	c := Wrap(m)
	start(t, &http.Server{}, converse).serve(c)
	pullSoon(t, c)
	_, raw := c.SyscallConn()
	n, werr := c.Write([]byte("400"))
	copied, _ := c.ReadFrom(bytes.NewReader(make([]byte, 7)))
	_, rerr := c.Read(make([]byte, 1))
	errs := errors.Join(c.SetDeadline(past), c.CloseRead(), c.CloseWrite(), c.Close())
	if raw != net.ErrClosed || n != 3 || werr != nil || copied != 7 || rerr != io.EOF || errs != nil {
		t.Errorf("%v, %d, %v, %d, %v, %v", raw, n, werr, copied, rerr, errs)
	}
	if len(m.written()) > 0 || m.isClosed() || m.past {
		t.Errorf("reached: %q, closed %t, deadline %t", m.written(), m.isClosed(), m.past)
	}
	if _, ok := c.Pull(patience); ok {
		t.Error("pulled twice")
	}
	if n, err := c.WriteTo(io.Discard); n != 0 || err != nil {
		t.Errorf("WriteTo: %d, %v", n, err)
	}
}

// spy sees whether the stream itself copies.
type spy struct {
	*net.TCPConn
	file atomic.Bool
}

func (s *spy) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		r = l.R
		defer func() { l.N = 0 }()
	}
	_, file := r.(*os.File)
	s.file.Store(file)
	return s.TCPConn.ReadFrom(r)
}

func TestFilesAreSentByTheStreamItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	for _, tcp := range []bool{true, false} {
		client, inner := streams(t, tcp)
		var seen *spy
		if tcp {
			seen = &spy{TCPConn: inner.(*net.TCPConn)}
			inner = seen
		}
		s.serve(Wrap(inner))
		_, _ = io.WriteString(client, get10[:len(get10)-28]+"\r\n\r\n")
		got, err := io.ReadAll(client)
		if err != nil || len(got) < 100_000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if tcp && !seen.file.Load() {
			t.Error("ReadFrom of the stream did not get the file")
		}
	}
}

func TestWriteToBeginsWithTheUnreadBytes(t *testing.T) {
	client, inner := pair(t)
	c := Resume(Moved{Conn: inner, Unread: []byte("ab")}, &http.Server{})
	_, _ = io.WriteString(client, "cd")
	_ = client.CloseWrite()
	var got bytes.Buffer
	if n, err := c.WriteTo(&got); n != 4 || err != nil || got.String() != "abcd" {
		t.Errorf("%d, %v, %q", n, err, got.String())
	}
}

func TestShortReadsOfAResumedConnection(t *testing.T) {
	m := newMemory()
	m.send("d")
	c := Resume(Moved{Conn: m, Unread: []byte("abc"), Posted: true}, &http.Server{})
	var got []byte
	for range 4 {
		b := make([]byte, 1)
		n, err := c.Read(b)
		if got = append(got, b[:n]...); err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != "abcd" {
		t.Errorf("read %q", got)
	}
}

// TestFullDuplexBodyLeftUnread: net/http then starts its background reader
// after it has stopped it, and panics. The connection must not look parked.
func TestFullDuplexBodyLeftUnread(t *testing.T) {
	m := newMemory()
	c := Wrap(m)
	start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "answer")
		_ = http.NewResponseController(w).Flush()
	}).serve(c)
	m.send(rehearsedPost)
	if !m.wait(func() bool { return len(m.out) > 0 }) {
		t.Fatal("no answer")
	}
	for end := time.Now().Add(patience); !m.isClosed() && time.Now().Before(end); {
		if _, ok := c.Pull(patience); ok {
			t.Fatal("pulled")
		}
	}
	if !m.isClosed() {
		t.Error("net/http goes on: it has changed, and the rule wants another look")
	}
}

func TestCloseDuringAPullThatIsGivenUp(t *testing.T) {
	client, c, g := serveGated(t)
	go func() {
		<-g.ended
		_ = c.Close() // as http.Server.Close does
	}()
	if _, ok := c.Pull(50 * time.Millisecond); ok {
		t.Fatal("pulled, though the Read had not ended")
	}
	if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
		t.Errorf("client read %q, %v", got, err)
	}
	close(g.gate)
}
