package movable

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// timed is a memory with deadlines.
type timed struct {
	*memory
	timer *time.Timer
}

func (m *timed) SetReadDeadline(t time.Time) error {
	if m.timer != nil {
		m.timer.Stop()
	}
	if t.IsZero() || t.Before(time.Now()) {
		return m.memory.SetReadDeadline(t)
	}
	m.timer = time.AfterFunc(time.Until(t), func() { m.set(func() { m.past = true }) })
	return m.memory.SetReadDeadline(time.Time{})
}

func (m *timed) SetDeadline(t time.Time) error { return m.SetReadDeadline(t) }

// travel moves c between two servers every step, until it is closed, and
// returns how long that has taken.
func travel(t *testing.T, all [2]*server, c *Conn, step time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	for i := 1; ; i++ {
		time.Sleep(step)
		synctest.Wait()
		if c.inner.(*timed).isClosed() {
			return time.Since(begin)
		}
		if time.Since(begin) > time.Hour {
			t.Fatal("kept alive for ever")
		}
		m, ok := c.Pull(time.Second)
		if !ok {
			t.Fatal("not parked")
		}
		c = Resume(m, all[i%2].Server)
		all[i%2].serve(c)
	}
}

func TestMovesKeepNoSlowClientAlive(t *testing.T) {
	for _, tt := range []struct {
		name string
		srv  *http.Server
		send string
		want time.Duration
	}{
		{"new", &http.Server{ReadHeaderTimeout: 10 * time.Second}, "", 10 * time.Second},
		{"new, ReadTimeout", &http.Server{ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute}, "", 10 * time.Second},
		{"idle", &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}, rehearsedGet, 2 * time.Minute},
		{"idle, ReadTimeout", &http.Server{ReadTimeout: 20 * time.Second}, rehearsedGet, 20 * time.Second},
		{"idle, no time for the header", &http.Server{IdleTimeout: time.Minute}, rehearsedGet, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var all [2]*server
				for i := range all {
					srv := &http.Server{ReadTimeout: tt.srv.ReadTimeout, ReadHeaderTimeout: tt.srv.ReadHeaderTimeout, IdleTimeout: tt.srv.IdleTimeout}
					all[i] = start(t, srv, converse)
				}
				m := &timed{memory: newMemory()}
				m.send(tt.send)
				c := Wrap(m)
				all[0].serve(c)
				step := 3 * time.Second
				if got := travel(t, all, c, step); got < tt.want || got > tt.want+2*step {
					t.Errorf("closed after %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestResumedConnectionHasTheTimeOfAnIdleOne(t *testing.T) {
	const header, body = "POST / HTTP/1.1\r\nHost: x\r\n", "Content-Length: 2\r\n\r\nok"
	for _, tt := range []struct {
		name   string
		pauses []time.Duration // before each part
		parts  []string
		closed bool
	}{
		{"a late request", []time.Duration{59 * time.Second}, []string{header + body}, false},
		{"too late", []time.Duration{61 * time.Second}, []string{header + body}, true},
		{"three bytes are still idle", []time.Duration{20 * time.Second, 35 * time.Second}, []string{"POS", "T" + header[4:] + body}, false},
		{"a slow header", []time.Duration{50 * time.Second, 9 * time.Second}, []string{header, body}, false},
		{"too slow a header", []time.Duration{50 * time.Second, 11 * time.Second}, []string{header, body}, true},
		{"a slow body", []time.Duration{50 * time.Second, 25 * time.Second}, []string{header + body[:21], body[21:]}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &http.Server{ReadTimeout: 30 * time.Second, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 70 * time.Second}
				s := start(t, srv, converse)
				m := &timed{memory: newMemory()}
				c := Resume(Moved{Conn: m, Idle: 10 * time.Second}, srv)
				s.serve(c)
				for i, part := range tt.parts {
					time.Sleep(tt.pauses[i])
					m.send(part)
				}
				synctest.Wait()
				got := string(m.written())
				if closed := m.isClosed(); closed != tt.closed || strings.HasSuffix(got, `"ok" <nil> map[]`) == closed {
					t.Errorf("closed %t, want %t; answer %q", closed, tt.closed, got)
				}
				_ = c.Close()
			})
		})
	}
}

func TestUnreadBytesComeFirst(t *testing.T) {
	s := start(t, &http.Server{}, converse)
	for cut := range len(rehearsedGet) + 1 {
		for _, isNew := range []bool{true, false} {
			m := newMemory()
			c := Resume(Moved{Conn: m, New: isNew, Unread: []byte(rehearsedGet[:cut])}, s.Server)
			s.serve(c)
			if cut > 0 && cut < len(rehearsedGet) {
				m.wait(func() bool { return m.waiting })
				if _, ok := c.Pull(patience); ok {
					t.Fatalf("pulled in the middle of a request, at %d", cut)
				}
			}
			m.send(rehearsedGet[cut:])
			m.wait(func() bool { return len(m.out) > 0 })
			moved := pullSoon(t, c)
			if moved.New || !strings.HasPrefix(string(m.written()), "HTTP/1.1 200 OK") {
				t.Errorf("cut at %d: new %t, answer %q", cut, moved.New, m.written())
			}
		}
	}
}

func TestReleaseGivesAHijackedConnectionWithItsUnreadBytes(t *testing.T) {
	got := make(chan []byte, 1)
	s := start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
		nc, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c := nc.(*Conn)
		if _, ok := c.Pull(patience); ok {
			t.Error("pulled a hijacked connection")
		}
		if inner, rest, err := c.Release(); err != nil || inner == nil {
			t.Errorf("not released: %v", err)
		} else if c.Restore(); len(rest) > 0 {
			if b := make([]byte, 1); mustRead(t, c, b) != rest[0] {
				t.Errorf("restored, it reads %q, want the beginning of %q", b, rest)
			}
		}
		inner, rest, err := c.Release()
		if err != nil || inner.(*memory).isClosed() {
			t.Errorf("not released: %v", err)
		}
		if _, _, err := c.Release(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("released twice: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read from a released connection: %v", err)
		}
		_ = c.Close()
		if inner.(*memory).isClosed() {
			t.Error("closed a released connection")
		}
		got <- rest
	})
	request := rehearsedGet[:len(rehearsedGet)-2] + "X: " + strings.Repeat("x", peekBuffer-len(rehearsedGet)-5) + "\r\n\r\n"
	c := Resume(Moved{Conn: newMemory(), New: true, Unread: []byte(request + "rest")}, s.Server)
	s.serve(c)
	// net/http's background reader may have got the first byte.
	if rest := <-got; string(rest) != "est" && string(rest) != "st" {
		t.Errorf("unread %q", rest)
	}
}

func mustRead(t *testing.T, c *Conn, b []byte) byte {
	if _, err := c.Read(b); err != nil {
		t.Error(err)
	}
	return b[0]
}

func TestReleaseDuringAReadIsRefused(t *testing.T) {
	inner := newMemory()
	c := Wrap(inner)
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	if !inner.wait(func() bool { return inner.waiting }) {
		t.Fatal("it does not read")
	}
	if _, _, err := c.Release(); !errors.Is(err, ErrReading) {
		t.Errorf("%v", err)
	}
	_ = c.SetReadDeadline(past)
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if _, _, err := c.Release(); err != nil {
		t.Error(err)
	}
}

// What was closed while it was released is closed if it comes back, and only
// then.
func TestCloseOfAReleasedConnectionCountsIfItIsRestored(t *testing.T) {
	inner := newMemory()
	c := Wrap(inner)
	if _, _, err := c.Release(); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if inner.isClosed() {
		t.Error("closed while it was released")
	}
	c.Restore()
	if !inner.isClosed() {
		t.Error("not closed when it came back")
	}
	if _, _, err := c.Release(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
