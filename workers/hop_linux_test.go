package workers

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers/dispatch"
)

// hop is the way of connections from a listener through the master, with a
// worker whose end is the test's.
type hop struct {
	ln   *listener.Listener
	d    *dispatcher
	far  *far
	fds  []int
	ids  []byte
	addr net.Addr
}

func newHop(t testing.TB) *hop {
	t.Helper()
	ln, err := listener.Bind(listener.NewSpec("tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	return &hop{ln: ln, d: d, far: fars[0], fds: make([]int, acceptBatch), addr: ln.Addr()}
}

// pass takes what is queued, in one message, and reads the acknowledgement.
func (h *hop) pass(t testing.TB) int {
	n, err := h.ln.TryAccept(h.fds, h.d)
	if err != nil || n == 0 {
		t.Fatalf("accepted %d: %v", n, err)
	}
	h.d.take(h.fds[:n], 0)
	f, err := h.far.conn.Recv()
	if err != nil || len(f.Files) != n {
		t.Fatalf("received %d of %d: %v", len(f.Files), n, err)
	}
	h.ids = h.ids[:0]
	for i, fd := range f.Files {
		id, _ := connEntry(f.Payload, i)
		h.ids = appendID(h.ids, id)
		unix.Close(fd)
	}
	if err := h.far.conn.TrySend(msgAck, h.ids, nil); err != nil {
		t.Fatal(err)
	}
	a, err := h.far.w.conn.Recv()
	if err != nil || a.Type != msgAck {
		t.Fatalf("message %d: %v", a.Type, err)
	}
	if err := h.d.ack(h.far.w, a.Payload); err != nil {
		t.Fatal(err)
	}
	return n
}

// knock connects and leaves: what is queued stays queued.
func (h *hop) knock(t testing.TB, n int) {
	to := &unix.SockaddrInet4{Port: h.addr.(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Without TIME_WAIT: a benchmark would run out of ports.
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err == nil {
			err = unix.Connect(fd, to)
		}
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
}

// TestMasterAllocatesNothingPerConnection: from accept to the close of its copy,
// once its buffers have grown.
func TestMasterAllocatesNothingPerConnection(t *testing.T) {
	const runs = 50
	for _, batch := range []int{1, acceptBatch} {
		t.Run(fmt.Sprintf("%d at a time", batch), func(t *testing.T) {
			h := newHop(t)
			for range 3 {
				h.knock(t, batch)
				h.pass(t)
			}
			// Connecting allocates, so all of them wait in the queue beforehand.
			h.fds = h.fds[:batch]
			h.knock(t, batch*(runs+1))
			if got := testing.AllocsPerRun(runs, func() {
				if n := h.pass(t); n != batch {
					t.Fatalf("%d at a time", n)
				}
			}); got != 0 {
				t.Errorf("%v allocations for %d connections", got, batch)
			}
		})
	}
}

// BenchmarkHop is what a connection costs from the listener's queue to the close
// of the master's copy, with the worker's share of system calls, and without the
// wake of another process.
func BenchmarkHop(b *testing.B) {
	for _, batch := range []int{1, 4, acceptBatch} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			h := newHop(b)
			h.fds = h.fds[:batch]
			h.knock(b, batch)
			h.pass(b)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; {
				b.StopTimer()
				h.knock(b, batch)
				b.StartTimer()
				done += h.pass(b)
			}
		})
	}
}

// BenchmarkConn compares what is made of a descriptor: our own connection, one
// of net.FileConn, and the same with a byte read and written.
func BenchmarkConn(b *testing.B) {
	l := alone("tcp")
	for _, way := range []struct {
		name string
		make func(fd int) (net.Conn, error)
	}{
		{"own", func(fd int) (net.Conn, error) { return newConn(l, incoming{fd: fd}) }},
		{"FileConn", func(fd int) (net.Conn, error) {
			f := os.NewFile(uintptr(fd), "")
			defer f.Close()
			return net.FileConn(f)
		}},
	} {
		b.Run("make/"+way.name, func(b *testing.B) {
			_, fd := tcpPair(b)
			defer unix.Close(fd)
			b.ReportAllocs()
			for b.Loop() {
				copied, err := fcntlDup(fd)
				if err != nil {
					b.Fatal(err)
				}
				c, err := way.make(copied)
				if err != nil {
					b.Fatal(err)
				}
				if own, ok := c.(*tcpConn); ok {
					own.release() // a Close would end the one it is a copy of
				} else {
					c.Close()
				}
			}
		})
		b.Run("echo/"+way.name, func(b *testing.B) {
			client, fd := tcpPair(b)
			c, err := way.make(fd)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 1)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
