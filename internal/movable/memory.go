package movable

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memory is a connection of SelfTest, of which it can be known that a Read
// waits and has nothing to get. Its deadlines are past, or never.
type memory struct {
	mu      sync.Mutex
	changed *sync.Cond
	in, out []byte
	idle    int // times that ConnState said so
	waiting bool
	asked   int  // by the Read that waits
	past    bool // the read deadline
	closed  bool
}

func newMemory() *memory {
	m := &memory{}
	m.changed = sync.NewCond(&m.mu)
	return m
}

// set changes m by f, and tells those who wait for that.
func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.changed.Broadcast()
}

func (m *memory) send(s string) { m.set(func() { m.in = append(m.in, s...) }) }
func (m *memory) becameIdle()   { m.set(func() { m.idle++ }) }

// wait waits until f, which is called with mu held.
func (m *memory) wait(f func() bool) bool {
	over := false
	limit := time.AfterFunc(rehearsalLimit, func() { m.set(func() { over = true }) })
	defer limit.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for !f() && !over {
		m.changed.Wait()
	}
	return !over
}

func (m *memory) written() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.out)
}

func (m *memory) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func (m *memory) Read(p []byte) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		switch {
		case m.closed:
			return 0, net.ErrClosed
		case m.past:
			return 0, os.ErrDeadlineExceeded
		case len(m.in) > 0:
			n = copy(p, m.in)
			m.in = m.in[n:]
			m.changed.Broadcast()
			return n, nil
		}
		m.waiting, m.asked = true, len(p)
		m.changed.Broadcast()
		m.changed.Wait()
		m.waiting = false
	}
}

func (m *memory) Write(p []byte) (int, error) {
	m.set(func() { m.out = append(m.out, p...) })
	return len(p), nil
}

func (m *memory) SetReadDeadline(t time.Time) error {
	m.set(func() { m.past = !t.IsZero() && t.Before(time.Now()) })
	return nil
}

func (m *memory) Close() error                          { m.set(func() { m.closed = true }); return nil }
func (m *memory) SetDeadline(t time.Time) error         { return m.SetReadDeadline(t) }
func (m *memory) SetWriteDeadline(time.Time) error      { return nil }
func (m *memory) CloseRead() error                      { return nil }
func (m *memory) CloseWrite() error                     { return nil }
func (m *memory) LocalAddr() net.Addr                   { return &net.UnixAddr{Net: "unix", Name: "memory"} }
func (m *memory) RemoteAddr() net.Addr                  { return m.LocalAddr() }
func (m *memory) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }
