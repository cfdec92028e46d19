//go:build unix

package ipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// pair returns both ends as Conns, with a deadline so that no failure hangs.
func pair(t testing.TB) (a, b *ipc.Conn) {
	t.Helper()
	a, f, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err = ipc.NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*ipc.Conn{a, b} {
		t.Cleanup(func() { c.Close() })
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// tempFiles opens n files, each holding its own number.
func tempFiles(t testing.TB, n int) []int {
	t.Helper()
	dir := t.TempDir()
	fds := make([]int, n)
	for i := range fds {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, fmt.Append(nil, i), 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds[i] = fd
	}
	return fds
}

func contents(t testing.TB, fd int) string {
	t.Helper()
	var buf [16]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		t.Fatalf("pread of received fd %d: %v", fd, err)
	}
	return string(buf[:n])
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// fill sends until the buffer is full and returns how many messages went in.
func fill(t testing.TB, c *ipc.Conn, payload []byte) int {
	t.Helper()
	for n := 0; ; n++ {
		err := c.TrySend(1, payload, nil)
		if err == ipc.ErrWouldBlock {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func wantFrame(t testing.TB, c *ipc.Conn, typ uint8, payload []byte) {
	t.Helper()
	f, err := c.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if f.Type != typ || !bytes.Equal(f.Payload, payload) || len(f.Files) != 0 || f.Missing != 0 {
		t.Fatalf("received type %d, %d bytes, %d files, %d missing; want type %d, %d bytes and no files",
			f.Type, len(f.Payload), len(f.Files), f.Missing, typ, len(payload))
	}
}

func wantEOF(t testing.TB, c *ipc.Conn) {
	t.Helper()
	for range 2 {
		if f, err := c.Recv(); err != io.EOF {
			t.Fatalf("Recv = %v, %v; want io.EOF", f, err)
		}
	}
}

func TestFilesArriveOpenAndCloseOnExec(t *testing.T) {
	for _, n := range []int{1, 16, ipc.MaxFiles} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			a, b := pair(t)
			files := tempFiles(t, n)
			if err := a.TrySend(5, []byte("first"), files); err != nil {
				t.Fatal(err)
			}
			// A message behind it must not disturb it, nor get its files.
			if err := a.TrySend(6, nil, nil); err != nil {
				t.Fatal(err)
			}
			f, err := b.Recv()
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(f.Files)
			if f.Type != 5 || string(f.Payload) != "first" || len(f.Files) != n || f.Missing != 0 {
				t.Fatalf("received type %d, %q, %d files, %d missing", f.Type, f.Payload, len(f.Files), f.Missing)
			}
			for i, fd := range f.Files {
				if got := contents(t, fd); got != fmt.Sprint(i) {
					t.Errorf("file %d holds %q", i, got)
				}
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("file %d: flags %#x, %v; want close-on-exec", i, flags, err)
				}
			}
			defer closeAll(append([]int(nil), f.Files...))
			wantFrame(t, b, 6, nil)
		})
	}
}

func TestTooLargeIsRefusedBeforeSending(t *testing.T) {
	a, b := pair(t)
	for _, send := range []func(uint8, []byte, []int) error{a.TrySend, a.Send} {
		if err := send(1, nil, make([]int, ipc.MaxFiles+1)); !errors.Is(err, ipc.ErrProtocol) {
			t.Errorf("254 files: %v, want ErrProtocol", err)
		}
		if err := send(1, make([]byte, ipc.MaxPayload+1), nil); !errors.Is(err, ipc.ErrProtocol) {
			t.Errorf("long payload: %v, want ErrProtocol", err)
		}
	}
	longest := bytes.Repeat([]byte("x"), ipc.MaxPayload)
	if err := a.TrySend(2, longest, nil); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, b, 2, longest)
}

func TestBadDescriptorSendsNothing(t *testing.T) {
	a, b := pair(t)
	if err := a.TrySend(1, nil, []int{1 << 20}); !errors.Is(err, unix.EBADF) {
		t.Fatalf("TrySend of a closed fd: %v, want EBADF", err)
	}
	if err := a.TrySend(2, nil, nil); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, b, 2, nil)
}

func TestDeathOfPeerLosesNothingItSent(t *testing.T) {
	a, b := pair(t)
	for i := range uint8(3) {
		if err := a.TrySend(i, []byte("never read"), nil); err != nil {
			t.Fatal(err)
		}
		if err := b.TrySend(10+i, []byte("queued"), nil); err != nil {
			t.Fatal(err)
		}
	}
	b.Close()
	for i := range uint8(3) {
		wantFrame(t, a, 10+i, []byte("queued"))
	}
	wantEOF(t, a)
	err := a.TrySend(1, nil, nil)
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("TrySend to the dead: %v, want EPIPE or ECONNRESET", err)
	}
	err = a.Send(1, nil, nil)
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("Send to the dead: %v, want EPIPE or ECONNRESET", err)
	}
}

func TestShutdownDeliversWhatIsQueued(t *testing.T) {
	a, b := pair(t)
	for i := range uint8(2) {
		if err := a.TrySend(i, []byte("from a"), nil); err != nil {
			t.Fatal(err)
		}
		if err := b.TrySend(i, []byte("from b"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Shutdown(); err != nil {
		t.Fatal(err)
	}
	for i := range uint8(2) {
		wantFrame(t, a, i, []byte("from b"))
		wantFrame(t, b, i, []byte("from a"))
	}
	wantEOF(t, a)
	wantEOF(t, b)
	if err := b.TrySend(1, nil, nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("TrySend after the peer's shutdown: %v, want EPIPE", err)
	}
	if err := b.Shutdown(); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

func TestShutdownWakesRecv(t *testing.T) {
	a, _ := pair(t)
	got := make(chan error, 1)
	go func() {
		_, err := a.Recv()
		got <- err
	}()
	if err := a.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != io.EOF {
		t.Errorf("Recv = %v, want io.EOF", err)
	}
}

func TestTrySendOnFullBufferSendsNothing(t *testing.T) {
	for _, size := range []int{0, 100, 20_000, ipc.MaxPayload} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			a, b := pair(t)
			payload := bytes.Repeat([]byte("p"), size)
			n := fill(t, a, payload)
			if n == 0 {
				t.Fatal("not one message fits into an empty buffer")
			}
			file := tempFiles(t, 1)
			if err := a.TrySend(2, payload, file); err != ipc.ErrWouldBlock {
				t.Fatalf("TrySend = %v, want ErrWouldBlock", err)
			}
			for range n {
				wantFrame(t, b, 1, payload)
			}
			if err := a.TrySend(3, []byte("marker"), nil); err != nil {
				t.Fatal(err)
			}
			wantFrame(t, b, 3, []byte("marker"))
		})
	}
}

func TestSendWaitsForRoom(t *testing.T) {
	a, b := pair(t)
	payload := make([]byte, 20_000)
	n := fill(t, a, payload)
	sent := make(chan error, 1)
	go func() { sent <- a.Send(9, []byte("waited"), nil) }()
	// Whether or not Send waits already, TrySend does not wait for it.
	if err := a.TrySend(2, payload, nil); err != ipc.ErrWouldBlock {
		t.Fatalf("TrySend = %v, want ErrWouldBlock", err)
	}
	for range n {
		wantFrame(t, b, 1, payload)
	}
	wantFrame(t, b, 9, []byte("waited"))
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestSendEndsAtDeadline(t *testing.T) {
	a, b := pair(t)
	payload := make([]byte, 20_000)
	n := fill(t, a, payload)
	if err := a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(9, payload, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Send = %v, want os.ErrDeadlineExceeded", err)
	}
	if err := a.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	for range n {
		wantFrame(t, b, 1, payload)
	}
	if err := a.Send(3, []byte("marker"), nil); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, b, 3, []byte("marker"))
}

func TestTrySendIgnoresDeadline(t *testing.T) {
	a, b := pair(t)
	if err := a.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := a.TrySend(4, nil, nil); err != nil {
		t.Fatalf("TrySend after the deadline: %v", err)
	}
	wantFrame(t, b, 4, nil)
}

func TestRecvEndsAtDeadlineAndGoesOn(t *testing.T) {
	a, b := pair(t)
	if err := b.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Recv(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Recv = %v, want os.ErrDeadlineExceeded", err)
	}
	if err := a.TrySend(4, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, b, 4, nil)
}

func TestCloseWakesWaiters(t *testing.T) {
	a, _ := pair(t)
	fill(t, a, make([]byte, 20_000))
	got := make(chan error, 2)
	go func() { _, err := a.Recv(); got <- err }()
	go func() { got <- a.Send(1, nil, nil) }()
	a.Close()
	for range 2 {
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want net.ErrClosed", err)
		}
	}
	for name, err := range map[string]error{
		"TrySend":          a.TrySend(1, nil, nil),
		"Shutdown":         a.Shutdown(),
		"SetReadDeadline":  a.SetReadDeadline(time.Time{}),
		"SetWriteDeadline": a.SetWriteDeadline(time.Time{}),
		"Close":            a.Close(),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v, want net.ErrClosed", name, err)
		}
	}
	if _, err := a.Dup(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dup after Close: %v, want net.ErrClosed", err)
	}
}

func TestDupIsTheSameSocket(t *testing.T) {
	a, b := pair(t)
	f, err := a.Dup()
	if err != nil {
		t.Fatal(err)
	}
	// As exec does with ExtraFiles, which may make the shared description
	// blocking.
	f.Fd()
	d, err := ipc.NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := b.TrySend(1, nil, nil); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, d, 1, nil)
	// The peer lives as long as one of them is open.
	a.Close()
	if err := d.TrySend(2, nil, nil); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, b, 2, nil)
	d.Close()
	wantEOF(t, b)
}

func TestNeverBlocksOnBlockingDescription(t *testing.T) {
	a, b := pair(t)
	f, err := a.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		t.Fatal(err)
	}
	fill(t, a, make([]byte, 1000))
	if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Recv(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Recv = %v, want os.ErrDeadlineExceeded", err)
	}
	wantFrame(t, b, 1, make([]byte, 1000))
}

func TestOnlySocketsOfOurKind(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	dgram, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dgram[1])
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*os.File{
		"pipe":     r,
		"datagram": os.NewFile(uintptr(dgram[0]), "datagram"),
		"tcp":      os.NewFile(uintptr(tcp), "tcp"),
	} {
		if ipc.IsSocket(f.Fd()) {
			t.Errorf("IsSocket(%s) = true", name)
		}
		if c, err := ipc.NewConn(f); err == nil {
			c.Close()
			t.Errorf("NewConn took a %s", name)
		} else if !strings.Contains(err.Error(), "expected type") {
			t.Errorf("NewConn(%s): %v", name, err)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("NewConn left the %s open", name)
		}
	}
	if ipc.IsSocket(1 << 20) {
		t.Error("IsSocket of a closed fd = true")
	}
	_, f, err := pairFile(t)
	if err != nil {
		t.Fatal(err)
	}
	if !ipc.IsSocket(f.Fd()) {
		t.Error("IsSocket of the child's end = false")
	}
}

// pairFile is Pair with the ends closed at the end of the test.
func pairFile(t testing.TB) (*ipc.Conn, *os.File, error) {
	c, f, err := ipc.Pair()
	if err == nil {
		t.Cleanup(func() { c.Close(); f.Close() })
		err = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	}
	return c, f, err
}
