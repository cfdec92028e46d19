package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A group needs root or its capabilities.
func needGroup(t *testing.T) {
	t.Helper()
	if err := GroupSupported(); err != nil {
		if os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// group has n slots, all of them live, at address.
func group(t *testing.T, network, address string, n int) *Group {
	t.Helper()
	needGroup(t)
	g, err := NewGroup(bind(t, NewSpec(network, address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Leave)
	grow(t, g, n)
	setLive(t, g, upTo(n)...)
	return g
}

func grow(t *testing.T, g *Group, n int) {
	t.Helper()
	for g.Len() < n {
		l, err := g.Add()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

func setLive(t *testing.T, g *Group, slots ...int) {
	t.Helper()
	if err := g.SetLive(slots...); err != nil {
		t.Fatal(err)
	}
	if got := g.Live(); !slices.Equal(got, slots) {
		t.Fatalf("live %v, want %v", got, slots)
	}
}

func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// slotOf connects and says whose queue the connection is in, having taken it.
func slotOf(t *testing.T, g *Group) int {
	t.Helper()
	dial(t, g.Slot(0))
	polls := make([]unix.PollFd, g.Len())
	for i := range polls {
		polls[i] = unix.PollFd{Fd: int32(g.Slot(i).File().Fd()), Events: unix.POLLIN}
	}
	for {
		n, err := unix.Poll(polls, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("%d queues have a connection, %v, want one", n, err)
		}
		break
	}
	at := slices.IndexFunc(polls, func(p unix.PollFd) bool { return p.Revents != 0 })
	if n := takeAll(t, g.Slot(at)); n != 1 {
		t.Fatalf("slot %d had %d connections, want one", at, n)
	}
	return at
}

// takeAll empties a queue.
func takeAll(t *testing.T, l *Listener) (n int) {
	t.Helper()
	fds := make([]int, 64)
	for {
		got, err := l.TryAccept(fds, &testGate{room: len(fds)})
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			return n
		}
		closeAll(t, fds[:got])
		n += got
	}
}

func order(t *testing.T, g *Group, n int) []int {
	t.Helper()
	got := make([]int, n)
	for i := range got {
		got[i] = slotOf(t, g)
	}
	return got
}

// expectTurns checks the order itself: a count would look right, too, if every
// connection had the same turn, or a random one.
func expectTurns(t *testing.T, g *Group, slots ...int) {
	t.Helper()
	got := order(t, g, 4*len(slots))
	first := slices.Index(slots, got[0])
	if first < 0 {
		t.Fatalf("order %v, want only %v", got, slots)
	}
	for i, slot := range got {
		if want := slots[(first+i)%len(slots)]; slot != want {
			t.Fatalf("order %v, want %v in turn", got, slots)
		}
	}
}

func TestSlotsTakeStrictTurns(t *testing.T) {
	for _, c := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp", ":0"}, {"tcp", "127.0.0.1:0"},
	} {
		t.Run(c.network+c.address, func(t *testing.T) {
			g := group(t, c.network, c.address, 3)
			expectTurns(t, g, 0, 1, 2)
		})
	}
}

func TestBothFamiliesOfAWildcardShareTheTurn(t *testing.T) {
	g := group(t, "tcp", ":0", 2)
	port := g.Slot(0).Addr().(*net.TCPAddr).Port
	for range 4 {
		var got [2]int
		for i, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(port)), patience)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			got[i] = -1
			for got[i] < 0 {
				for slot := range 2 {
					if takeAll(t, g.Slot(slot)) == 1 {
						got[i] = slot
					}
				}
			}
		}
		if got != [2]int{0, 1} {
			t.Fatalf("slots %v, want 0, 1", got)
		}
	}
}

func TestRetiredSlotGetsNoneButKeepsItsQueue(t *testing.T) {
	g := group(t, "tcp", "127.0.0.1:0", 3)
	for range 3 {
		dial(t, g.Slot(0))
	}
	setLive(t, g, 0, 2)
	awaitQueued(t, g.Slot(1))
	for i := range 3 {
		if n := takeAll(t, g.Slot(i)); n != 1 {
			t.Errorf("slot %d: %d in the queue, want 1", i, n)
		}
	}
	expectTurns(t, g, 0, 2)
	setLive(t, g, 2, 1, 0)
	expectTurns(t, g, 2, 1, 0)
}

func TestGroupGrows(t *testing.T) {
	g := group(t, "tcp", "127.0.0.1:0", 1)
	expectTurns(t, g, 0)
	grow(t, g, 2)
	setLive(t, g, 1, 0)
	expectTurns(t, g, 1, 0)
	grow(t, g, 20)
	expectTurns(t, g, 1, 0) // not before they are live
	setLive(t, g, upTo(20)...)
	expectTurns(t, g, upTo(20)...)
}

func TestWithoutALiveSlotNothingIsRefused(t *testing.T) {
	g := group(t, "tcp", "127.0.0.1:0", 3)
	setLive(t, g)
	order(t, g, 30)
}

func TestGroupNamesWhatIsWrong(t *testing.T) {
	needGroup(t)
	tcp := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	other := bind(t, NewSpec("tcp", "127.0.0.1:0", Name("other")))
	for _, c := range []struct {
		sockets []*Listener
		want    string
	}{
		{nil, "0 sockets"},
		{make([]*Listener, MaxSlots+1), "1025 sockets"},
		{[]*Listener{bind(t, NewSpec("unix", t.TempDir()+"/s", Name("u")))}, `listener "u": expected TCP`},
		{[]*Listener{tcp, other}, "expected sockets at one address"},
	} {
		if _, err := NewGroup(c.sockets...); !errors.Is(err, ErrNoGroup) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	g := group(t, "tcp", "127.0.0.1:0", 2)
	for _, slots := range [][]int{{2}, {-1}, make([]int, MaxSlots+1)} {
		if err := g.SetLive(slots...); err == nil {
			t.Errorf("live slots %v: no error", slots)
		}
	}
	expectTurns(t, g, 0, 1)
	g.Leave()
	g.Leave()
	if err := g.SetLive(0); !errors.Is(err, ErrNoGroup) {
		t.Errorf("after Leave: %v", err)
	}
	if _, err := g.Add(); !errors.Is(err, ErrNoGroup) {
		t.Errorf("after Leave: %v", err)
	}
}

func TestASecondServiceCannotHaveTheAddress(t *testing.T) {
	g := group(t, "tcp", "127.0.0.1:0", 2)
	if l, err := Bind(NewSpec("tcp", g.Slot(0).Addr().String())); err == nil {
		l.Close()
		t.Error("bound beside a group that is not its own")
	}
}

// Of a group whose process has gone the sockets are left, as copies, and the
// program; of one whose process goes on, both.
func TestSuccessorTakesTheGroupOver(t *testing.T) {
	for _, gone := range []bool{true, false} {
		t.Run(fmt.Sprintf("gone=%v", gone), func(t *testing.T) {
			old := group(t, "tcp", "127.0.0.1:0", 3)
			var sockets []*Listener
			for i := range 3 {
				l, err := FromFile(old.Slot(i).Spec(), inherited(t, old.Slot(i).File()))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				sockets = append(sockets, l)
			}
			if gone {
				old.Leave()
				expectTurns(t, old, 0, 1, 2) // though nobody holds the program
			} else {
				time.AfterFunc(20*time.Millisecond, old.Leave)
			}
			g, err := NewGroup(sockets...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Leave)
			setLive(t, g, 0, 2)
			expectTurns(t, g, 0, 2)
			grow(t, g, 4)
			setLive(t, g, 3, 2, 1)
			expectTurns(t, g, 3, 2, 1)
		})
	}
}

func TestSwitchingLosesAndMisplacesNothing(t *testing.T) {
	const slots = 5
	g := group(t, "tcp", "127.0.0.1:0", slots)
	var accepted [slots]atomic.Int64
	stop := make(chan struct{})
	var serving, dialing sync.WaitGroup
	for i := range slots {
		serving.Go(func() {
			fds := make([]int, 64)
			for {
				n, err := g.Slot(i).Accept(fds, &testGate{room: len(fds)})
				for _, fd := range fds[:n] {
					unix.Write(fd, []byte{byte(i)})
					unix.Close(fd)
				}
				accepted[i].Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	var served atomic.Int64
	for range 4 {
		dialing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.DialTimeout("tcp", g.Slot(0).Addr().String(), patience)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(patience))
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Error(err)
				}
				c.Close()
				served.Add(1)
			}
		})
	}
	// Slot 0 is in none of them, slot 4 in every other.
	sets := [][]int{{1}, {4, 3, 2, 1}, {2, 3}, {4}, {3, 1, 2}, {1, 2, 3, 4}}
	setLive(t, g, sets[0]...)
	awaitIdle(t, g)
	before := accepted[0].Load()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for _, s := range sets {
			setLive(t, g, s...)
		}
	}
	close(stop)
	dialing.Wait()
	for i := range slots {
		g.Slot(i).Pause()
	}
	serving.Wait()
	var sum int64
	for i := range slots {
		sum += accepted[i].Load()
	}
	if got := accepted[0].Load() - before; got != 0 {
		t.Errorf("slot 0 had %d connections after it was retired", got)
	}
	if served.Load() != sum || sum == 0 {
		t.Errorf("%d clients served, %d connections accepted", served.Load(), sum)
	}
	for i := 1; i < slots; i++ {
		if accepted[i].Load() == 0 {
			t.Errorf("slot %d had no connection at all", i)
		}
	}
}

// awaitIdle returns when nobody who began before can still come to slot 0.
func awaitIdle(t *testing.T, g *Group) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if !g.Slot(0).Handshaking() && !g.Slot(0).Queued() {
			return
		}
		if time.Now().After(end) {
			t.Fatal("slot 0 goes on getting connections")
		}
	}
}

func TestAGroupHoldsNoDescriptorAfterLeave(t *testing.T) {
	needGroup(t)
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	before := descriptors(t)
	for range 3 {
		g, err := NewGroup(l)
		if err != nil {
			t.Fatal(err)
		}
		m, err := g.Add()
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			setLive(t, g, 0, 1)
		}
		m.Close()
		g.Leave()
		if _, err := NewGroup(l, m); err == nil {
			t.Error("a closed socket joined")
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestWithoutTheCapabilityTheReasonIsSaid(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=group")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"CAP_BPF", "CAP_NET_ADMIN", "Linux ", "user 65534"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q: expected %q in it", out, want)
		}
	}
}
