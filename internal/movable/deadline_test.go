package movable

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// deadlineLog is what becomes of a connection whose deadlines move at random, and
// when. Times are odd enough that nothing happens at the same instant.
func deadlineLog(c net.Conn, m *timed, seed uint64) []string {
	rnd := rand.New(rand.NewPCG(seed, 0))
	odd := func() time.Duration { return time.Duration(1 + rnd.Int64N(int64(10*time.Second))) }
	begin := time.Now()
	var mu sync.Mutex
	var log []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprint(time.Since(begin), " ", fmt.Sprintf(format, args...)))
	}
	var reading atomic.Bool
	for range 200 {
		end, op := time.Time{}, rnd.IntN(8)
		switch op {
		case 1:
			end = past
		case 2:
			end = time.Now().Add(-odd())
		case 3, 4:
			end = time.Now().Add(odd())
		case 5: // on the wall clock only
			end = time.Now().Add(odd()).Round(0)
		}
		switch op {
		default:
			note("deadline %v", end)
			if err := c.SetReadDeadline(end); err != nil {
				note("%v", err)
			}
		case 6:
			m.send("ab")
		case 7:
		}
		synctest.Wait()
		if n := 1 + rnd.IntN(3); reading.CompareAndSwap(false, true) {
			go func() {
				got, err := c.Read(make([]byte, n))
				note("read %d %v", got, errors.Is(err, os.ErrDeadlineExceeded))
				reading.Store(false)
			}()
		}
		synctest.Wait()
		if rnd.IntN(2) == 0 {
			time.Sleep(odd())
			synctest.Wait()
		}
	}
	_ = m.Close()
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	return log
}

func TestDeadlinesAreKeptAsByAPlainConnection(t *testing.T) {
	timeouts := 0
	for seed := range uint64(200) {
		logs := [2][]string{}
		for i := range logs {
			synctest.Test(t, func(t *testing.T) {
				m := &timed{memory: newMemory()}
				c := net.Conn(m)
				if i == 1 {
					c = Wrap(m)
				}
				logs[i] = deadlineLog(c, m, seed)
			})
		}
		for i, want := range logs[0] {
			if len(logs[1]) <= i || logs[1][i] != want {
				t.Fatalf("seed %d, step %d: want %q, have %q", seed, i, want, logs[1][min(i, len(logs[1])-1)])
			}
			if want[len(want)-4:] == "true" {
				timeouts++
			}
		}
	}
	if timeouts < 1000 {
		t.Errorf("only %d timeouts were seen", timeouts)
	}
}

// told counts the deadlines that reach the stream.
type told struct {
	*net.TCPConn
	reads, writes atomic.Int64
}

func (s *told) SetReadDeadline(t time.Time) error {
	s.reads.Add(1)
	return s.TCPConn.SetReadDeadline(t)
}
func (s *told) SetWriteDeadline(t time.Time) error {
	s.writes.Add(1)
	return s.TCPConn.SetWriteDeadline(t)
}

func TestDeadlinesAheadDoNotReachTheStream(t *testing.T) {
	client, inner := pair(t)
	s := &told{TCPConn: inner}
	c := Wrap(s)
	for i := range 100 {
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(1+i%2) * time.Hour))
		_, _ = client.Write([]byte("x"))
		if n, err := c.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		_ = c.SetReadDeadline(past) // nobody reads
		_ = c.SetReadDeadline(time.Time{})
		_ = c.SetWriteDeadline(time.Time{})
	}
	if s.reads.Load() > 0 || s.writes.Load() > 0 {
		t.Errorf("the stream was told %d read deadlines, %d write deadlines", s.reads.Load(), s.writes.Load())
	}
	_ = c.SetWriteDeadline(past)
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	_ = c.SetWriteDeadline(time.Time{})
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("write: %v", err)
	}
}

// TestDeadlinesOfTCP: how a Read ends, as net itself does it.
func TestDeadlinesOfTCP(t *testing.T) {
	const soon = 20 * time.Millisecond
	read := func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }
	via := map[string]func(*Conn) error{
		"Read":    func(c *Conn) error { return read(c) },
		"WriteTo": func(c *Conn) error { _, err := c.WriteTo(io.Discard); return err },
		"SyscallConn": func(c *Conn) error {
			raw, err := c.SyscallConn()
			if err != nil {
				return err
			}
			return raw.Read(func(uintptr) bool { return false })
		},
	}
	for name, wait := range via {
		t.Run(name, func(t *testing.T) {
			_, inner := pair(t)
			c := Wrap(inner)
			end := time.Now().Add(soon)
			_ = c.SetReadDeadline(end)
			if err := wait(c); !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(end) {
				t.Errorf("%v, %v too early", err, time.Until(end))
			}
			if err := wait(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("over, but %v", err)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Hour))
			ended := make(chan error)
			go func() { ended <- wait(c) }()
			_ = c.SetReadDeadline(past)
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("past: %v", err)
			}
		})
	}
	t.Run("errors", func(t *testing.T) {
		_, inner := pair(t)
		_ = inner.SetReadDeadline(past)
		want := read(inner)
		_ = inner.SetReadDeadline(time.Time{})
		c := Wrap(inner)
		_ = c.SetReadDeadline(past)
		if got := read(c); got.Error() != want.Error() {
			t.Errorf("have %v, want %v", got, want)
		}
		_ = c.Close()
		if err := read(c); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed, but %v", err)
		}
		if err := errors.Join(c.SetReadDeadline(past), c.SetWriteDeadline(time.Time{})); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed, but %v", err)
		}
	})
	t.Run("released and restored", func(t *testing.T) {
		_, inner := pair(t)
		c := Wrap(inner)
		_ = c.SetReadDeadline(past)
		if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if _, _, err := c.Release(); err != nil {
			t.Fatal(err)
		}
		c.Restore()
		if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("restored, but %v", err)
		}
		end := time.Now().Add(soon)
		_ = c.SetReadDeadline(end)
		_, _, _ = c.Release()
		c.Restore()
		if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(end) {
			t.Errorf("restored: %v", err)
		}
	})
}

// TestDeadlinesAndReadsAtOnce is for the race detector, and for wakes that are
// lost: a Read that waits ends after the last of many deadlines.
func TestDeadlinesAndReadsAtOnce(t *testing.T) {
	_, inner := pair(t)
	c := Wrap(inner)
	for range 200 {
		var all sync.WaitGroup
		ended := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
		for range 3 {
			all.Go(func() {
				for i := range 20 {
					_ = c.SetReadDeadline([]time.Time{{}, time.Now().Add(time.Hour), time.Now().Add(time.Duration(i) * time.Microsecond)}[i%3])
				}
			})
		}
		all.Wait()
		_ = c.SetReadDeadline(past)
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("the Read was not woken")
		}
		_ = c.SetReadDeadline(time.Time{})
	}
}
