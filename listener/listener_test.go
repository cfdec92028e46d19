//go:build unix

package listener

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/leaktest"
)

// patience is for what must happen; nothing waits that long unless it fails.
const patience = 10 * time.Second

// testGate has a fixed room and counts what is reserved and not refunded.
type testGate struct {
	mu       sync.Mutex
	room     int
	held     int
	onRefund func(held int) // called with the lock held
}

func (g *testGate) Reserve(max int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(max, g.room-g.held)
	g.held += n
	return n
}

func (g *testGate) Refund(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held -= n
	if g.onRefund != nil {
		g.onRefund(g.held)
	}
}

func (g *testGate) outstanding() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

func bind(t *testing.T, s Spec) *Listener {
	t.Helper()
	l, err := Bind(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(l.Addr().Network(), l.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// awaitQueued returns when a connection can be accepted: connect may return
// on the client's side a moment earlier.
func awaitQueued(t *testing.T, l *Listener) {
	t.Helper()
	if err := l.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(p, int(patience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if n != 1 || err != nil {
				t.Errorf("no connection in the queue: %d, %v", n, err)
			}
			return
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func closeAll(t *testing.T, fds []int) {
	t.Helper()
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			t.Errorf("close %d: %v", fd, err)
		}
	}
}

// sockets are one listener of each kind.
func sockets(t *testing.T) []Spec {
	return []Spec{
		NewSpec("tcp", "127.0.0.1:0"),
		NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("unix")),
	}
}

type result struct {
	n   int
	err error
}

// acceptInBackground returns when Accept found the queue empty: it waits, or
// will in a moment.
func acceptInBackground(t *testing.T, l *Listener, fds []int) (*testGate, <-chan result) {
	t.Helper()
	waiting := make(chan int, 16)
	g := &testGate{room: len(fds), onRefund: func(held int) { waiting <- held }}
	done := make(chan result, 1)
	go func() {
		n, err := l.Accept(fds, g)
		done <- result{n, err}
	}()
	select {
	case held := <-waiting:
		if held != 0 {
			t.Errorf("Accept waits with %d reservations", held)
		}
	case r := <-done:
		t.Fatalf("Accept on an empty queue: got %d, %v", r.n, r.err)
	case <-time.After(patience):
		t.Fatal("Accept refunds nothing before it waits")
	}
	return g, done
}

func await(t *testing.T, done <-chan result) result {
	t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(patience):
		t.Fatal("Accept does not return")
		return result{}
	}
}

func TestWhatTheGateRefusesStaysQueued(t *testing.T) {
	for _, s := range sockets(t) {
		t.Run(s.Network, func(t *testing.T) {
			l := bind(t, s)
			for range 5 {
				dial(t, l)
			}
			g := &testGate{room: 2}
			fds := make([]int, 8)
			var got []int
			for len(got) < 2 {
				n, err := l.Accept(fds, g)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fds[:n]...)
			}
			if n, err := l.Accept(fds, g); n != 0 || err != ErrNoRoom {
				t.Fatalf("no room: got %d, %v, want 0, ErrNoRoom", n, err)
			}
			if n, err := l.Accept(nil, &testGate{room: 2}); n != 0 || err != ErrNoRoom {
				t.Fatalf("no room in fds: got %d, %v, want 0, ErrNoRoom", n, err)
			}
			if n, err := l.TryAccept(fds, g); n != 0 || err != ErrNoRoom {
				t.Fatalf("no room: got %d, %v, want 0, ErrNoRoom", n, err)
			}
			// One at a time from here: no new edge comes for the ones behind.
			for range 3 {
				g = &testGate{room: 1}
				n, err := l.Accept(fds, g)
				if n != 1 || err != nil {
					t.Fatalf("got %d, %v, want 1, nil", n, err)
				}
				got = append(got, fds[0])
			}
			if n, err := l.TryAccept(fds, &testGate{room: 8}); n != 0 || err != nil {
				t.Errorf("empty queue: got %d, %v, want 0, nil", n, err)
			}
			closeAll(t, got)
		})
	}
}

// generousGate promises more than it was asked for.
type generousGate struct{ testGate }

func (g *generousGate) Reserve(max int) int { return g.testGate.Reserve(max + 3) }

func TestGenerousGateGetsTheExcessBack(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	dial(t, l)
	dial(t, l)
	g := &generousGate{testGate{room: 10}}
	fds := make([]int, 1)
	for i := range 2 {
		n, err := l.Accept(fds, g)
		if n != 1 || err != nil || g.outstanding() != i+1 {
			t.Errorf("got %d, %v and %d reserved, want 1, nil and %d", n, err, g.outstanding(), i+1)
		}
		closeAll(t, fds[:n])
	}
}

func TestReservationIsNotHeldWhileWaiting(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	fds := make([]int, 4)
	g, done := acceptInBackground(t, l, fds)
	dial(t, l)
	r := await(t, done)
	if r.n != 1 || r.err != nil || g.outstanding() != 1 {
		t.Errorf("got %d, %v and %d reserved, want 1, nil and 1", r.n, r.err, g.outstanding())
	}
	closeAll(t, fds[:r.n])
}

func TestPauseWakesAndResumeGoesOn(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	fds := make([]int, 4)
	g, done := acceptInBackground(t, l, fds)
	l.Pause()
	if r := await(t, done); r.n != 0 || r.err != os.ErrDeadlineExceeded || g.outstanding() != 0 {
		t.Fatalf("got %d, %v and %d reserved, want os.ErrDeadlineExceeded", r.n, r.err, g.outstanding())
	}
	dial(t, l)
	if n, err := l.Accept(fds, g); n != 0 || err != os.ErrDeadlineExceeded {
		t.Fatalf("paused: got %d, %v, want os.ErrDeadlineExceeded", n, err)
	}
	l.Resume()
	n, err := l.Accept(fds, g)
	if n != 1 || err != nil {
		t.Fatalf("resumed: got %d, %v, want 1, nil", n, err)
	}
	closeAll(t, fds[:n])
}

func TestPausingAgainAndAgainLosesNothing(t *testing.T) {
	const clients = 100
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	stop := make(chan struct{})
	var toggling sync.WaitGroup
	toggling.Go(func() {
		for {
			l.Pause()
			l.Resume()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var dialing sync.WaitGroup
	for range 4 {
		dialing.Go(func() {
			for range clients / 4 {
				c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
			}
		})
	}
	watchdog := time.AfterFunc(patience, func() { l.Close() })
	defer watchdog.Stop()
	fds := make([]int, 3)
	g := &testGate{room: 1 << 20}
	for got := 0; got < clients; {
		n, err := l.Accept(fds, g)
		if err != nil && err != os.ErrDeadlineExceeded {
			t.Errorf("%v after %d of %d", err, got, clients)
			break
		}
		closeAll(t, fds[:n])
		got += n
	}
	close(stop)
	toggling.Wait()
	dialing.Wait()
}

func TestTryAcceptDrainsAPausedListener(t *testing.T) {
	for _, s := range sockets(t) {
		t.Run(s.Network, func(t *testing.T) {
			l := bind(t, s)
			l.Pause()
			for range 5 {
				dial(t, l)
			}
			g := &testGate{room: 100}
			fds := make([]int, 2)
			for got := 0; got < 5; {
				awaitQueued(t, l)
				n, err := l.TryAccept(fds, g)
				if n == 0 || err != nil {
					t.Fatalf("got %d, %v after %d of 5", n, err, got)
				}
				closeAll(t, fds[:n])
				got += n
			}
			if n, err := l.TryAccept(fds, g); n != 0 || err != nil || g.outstanding() != 5 {
				t.Errorf("empty queue: got %d, %v and %d reserved, want 0, nil and 5", n, err, g.outstanding())
			}
		})
	}
}

func TestTryAcceptWorksWhileAcceptWaits(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	fds := make([]int, 4)
	_, done := acceptInBackground(t, l, fds)
	if n, err := l.TryAccept(make([]int, 1), &testGate{room: 1}); n != 0 || err != nil {
		t.Errorf("got %d, %v, want 0, nil", n, err)
	}
	l.Pause()
	await(t, done)
}

func TestCloseWakesAccept(t *testing.T) {
	for _, end := range []struct {
		name string
		call func(*Listener) error
	}{{"Close", (*Listener).Close}, {"Release", (*Listener).Release}} {
		t.Run(end.name, func(t *testing.T) {
			l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
			fds := make([]int, 4)
			g, done := acceptInBackground(t, l, fds)
			if err := end.call(l); err != nil {
				t.Error(err)
			}
			if r := await(t, done); r.n != 0 || r.err != net.ErrClosed {
				t.Errorf("got %d, %v, want net.ErrClosed", r.n, r.err)
			}
			if _, err := l.Accept(fds, g); err != net.ErrClosed {
				t.Errorf("Accept: got %v, want net.ErrClosed", err)
			}
			if _, err := l.TryAccept(fds, g); err != net.ErrClosed {
				t.Errorf("TryAccept: got %v, want net.ErrClosed", err)
			}
			if _, err := l.Net(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Net: got %v, want net.ErrClosed", err)
			}
			l.Pause()
			l.Resume()
			if err := l.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		})
	}
}

func TestAcceptedSocketsInheritTheOptions(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	dial(t, l)
	fds := make([]int, 1)
	n, err := l.Accept(fds, &testGate{room: 1})
	if n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	defer closeAll(t, fds)
	for _, o := range []struct {
		name             string
		level, opt, want int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"keep-alive idle", unix.IPPROTO_TCP, optKeepIdle, 15},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		got, err := unix.GetsockoptInt(fds[0], o.level, o.opt)
		if err != nil || got == 0 || o.want > 1 && got != o.want {
			t.Errorf("%s: got %d, %v, want %d", o.name, got, err, o.want)
		}
	}
	if err := checkProtocol(fds[0]); err != nil {
		t.Error(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v, want O_NONBLOCK", flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v, want FD_CLOEXEC", flags, err)
	}
}

func TestNetServesAndLeavesTheSocketAlone(t *testing.T) {
	for _, s := range sockets(t) {
		t.Run(s.Network, func(t *testing.T) {
			l := bind(t, s)
			n, err := l.Net()
			if err != nil {
				t.Fatal(err)
			}
			dial(t, l)
			c, err := n.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			flags, err := unix.FcntlInt(l.File().Fd(), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("flags %#x, %v, want O_NONBLOCK", flags, err)
			}
			dial(t, l)
			fds := make([]int, 1)
			if got, err := l.Accept(fds, &testGate{room: 1}); got != 1 || err != nil {
				t.Fatalf("got %d, %v, want 1, nil", got, err)
			}
			closeAll(t, fds)
		})
	}
}

func TestListenerIsOneDescriptor(t *testing.T) {
	before := len(leaktest.OpenFiles())
	l := bind(t, NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("unix")))
	if got := len(leaktest.OpenFiles()) - before; before > 0 && got != 1 {
		t.Errorf("got %d descriptors, want 1", got)
	}
	flags, err := unix.FcntlInt(l.File().Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v, want FD_CLOEXEC", flags, err)
	}
}

func TestAcceptReportsWhatIsNotTransient(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	// What a process that holds a duplicate can do to all of them.
	if err := l.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) }); err != nil {
		t.Fatal(err)
	}
	g := &testGate{room: 1}
	n, err := l.Accept(make([]int, 1), g)
	if _, ok := errors.AsType[syscall.Errno](err); n != 0 || !ok || g.outstanding() != 0 {
		t.Errorf("got %d, %v and %d reserved, want an errno", n, err, g.outstanding())
	}
}

func TestBindRefusesATakenPort(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	_, err := Bind(NewSpec("tcp", l.Addr().String(), Name("api")))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
	if _, err := Bind(NewSpec("tcp", "foo")); err == nil {
		t.Error("Bind takes an invalid spec")
	}
}

// A listener that is shunned gives out what has queued and resets nobody.
func TestShunnedListenerResetsNobody(t *testing.T) {
	for _, s := range sockets(t) {
		l := bind(t, s)
		queued := dial(t, l)
		awaitQueued(t, l)
		if err := l.Shun(); err != nil {
			t.Fatalf("%s: %v", s.Network, err)
		}
		late := make(chan error, 1)
		go func() {
			c, err := net.DialTimeout(l.Addr().Network(), l.Addr().String(), 200*time.Millisecond)
			if err == nil {
				c.Close()
			}
			late <- err
		}()
		if err := <-late; err == nil || errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: a connection that came later: %v", s.Network, err)
		}
		fds := make([]int, 4)
		n, err := l.TryAccept(fds, &testGate{room: 4})
		if n != 1 || err != nil {
			t.Errorf("%s: accepted %d, %v", s.Network, n, err)
		}
		closeAll(t, fds[:n])
		queued.Close()
	}
}
