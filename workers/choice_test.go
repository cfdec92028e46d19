//go:build unix

package workers

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
)

// scripted is a policy that does what a test says.
type scripted func(c dispatch.Conn, ws []dispatch.Worker) int

func (scripted) Name() string                                     { return "scripted" }
func (s scripted) Pick(c dispatch.Conn, ws []dispatch.Worker) int { return s(c, ws) }

// accusations makes d tell what it has against its policy.
func accusations(d *dispatcher) *[]PolicyFailed {
	var all []PolicyFailed
	d.choice.failed = func(e PolicyFailed) { all = append(all, e) }
	return &all
}

// shares are how many connections each worker has been sent.
func shares(fars []*far) (out []int) {
	for _, a := range fars {
		out = append(out, int(a.w.dispatched))
	}
	return out
}

func wantShares(t *testing.T, fars []*far, want ...int) {
	t.Helper()
	if got := shares(fars); !slices.Equal(got, want) {
		t.Errorf("connections went %v, want %v", got, want)
	}
}

func TestPanicOfAPolicyMakesItRoundRobin(t *testing.T) {
	asked := 0
	d, fars := newTestDispatcher(t, scripted(func(_ dispatch.Conn, ws []dispatch.Worker) int {
		if asked++; asked == 3 {
			panic("out of ideas")
		}
		return len(ws) - 1
	}), 3)
	told := accusations(d)
	for range 8 {
		accept(t, d, 1)
	}
	// Two by the policy, six in turn.
	wantShares(t, fars, 2, 2, 4)
	if asked != 3 {
		t.Errorf("it is asked %d times", asked)
	}
	if len(*told) != 1 || (*told)[0].Policy != "scripted" || (*told)[0].Reason != "it panics: out of ideas" ||
		!strings.Contains((*told)[0].Stack, "TestPanicOfAPolicyMakesItRoundRobin") {
		t.Errorf("told %+v", *told)
	}
	if d.choice.name != "round-robin" {
		t.Errorf("the policy in force is %s", d.choice.name)
	}
	// Until a generation has another.
	d.serve(windowsOf(fars), d.serving, nil, rule{policy: scripted(func(dispatch.Conn, []dispatch.Worker) int { return 0 })})
	accept(t, d, 1)
	wantShares(t, fars, 3, 2, 4)
	checkLedger(t, d.serving, 9)
}

func windowsOf(fars []*far) (ws []*window) {
	for _, a := range fars {
		ws = append(ws, a.w)
	}
	return ws
}

func TestUselessAnswersGoRound(t *testing.T) {
	for name, answer := range map[string]scripted{
		"nobody": func(dispatch.Conn, []dispatch.Worker) int { return -1 },
		"beyond": func(_ dispatch.Conn, ws []dispatch.Worker) int { return len(ws) },
		"minus":  func(dispatch.Conn, []dispatch.Worker) int { return -1 << 63 },
		// It writes into what it is shown, so that all look full.
		"all are full": func(_ dispatch.Conn, ws []dispatch.Worker) int { clear(ws); return -1 },
	} {
		t.Run(name, func(t *testing.T) {
			d, fars := newTestDispatcher(t, answer, 3)
			told := accusations(d)
			for _, n := range []int{1, 4, 1} {
				accept(t, d, n)
			}
			wantShares(t, fars, 2, 2, 2)
			if len(*told) != 1 || !strings.Contains((*told)[0].Reason, "while others have room") || (*told)[0].Stack != "" {
				t.Errorf("told %+v", *told)
			}
			if d.choice.name != "scripted" {
				t.Errorf("it is not asked any more, but %s is", d.choice.name)
			}
		})
	}
}

// TestPolicyCannotMakeRoom: all look empty to a policy that says so.
func TestPolicyCannotMakeRoom(t *testing.T) {
	d, fars := newTestDispatcher(t, scripted(func(_ dispatch.Conn, ws []dispatch.Worker) int {
		for i := range ws {
			ws[i].Free = 1000
		}
		return 0
	}), 2)
	told := accusations(d)
	total := 0
	for n := 1; n > 0; total += n {
		n = accept(t, d, acceptBatch)
	}
	if got := shares(fars); total != 2*DefaultWindow || got[0] != DefaultWindow || got[1] != DefaultWindow {
		t.Errorf("%d accepted, sent %v", total, got)
	}
	if len(*told) != 1 {
		t.Errorf("told %+v", *told)
	}
}

func TestFullWindowsAreNoFaultOfThePolicy(t *testing.T) {
	for _, p := range []dispatch.Policy{dispatch.RoundRobin(), dispatch.Weighted(), dispatch.LeastConnections(), dispatch.Hash()} {
		d, fars := newTestDispatcher(t, p, 3)
		told := accusations(d)
		for accept(t, d, 7) > 0 {
		}
		wantShares(t, fars, DefaultWindow, DefaultWindow, DefaultWindow)
		d.Reserve(1)
		d.take([]int{socket(t)}, 0) // nobody has room
		d.retry()
		if n := len(d.queued()); n != 1 || len(*told) > 0 {
			t.Errorf("%s: %d queued, told %+v", p.Name(), n, *told)
		}
	}
}

// pretend makes a worker say that it has n connections open.
func pretend(t *testing.T, a *far, n int64) {
	t.Helper()
	if a.w.page == nil {
		page, err := anonFile("page", pageSize)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { page.Close() })
		a.w.page = page
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(n))
	if _, err := a.w.page.WriteAt(b[:], pageOpen); err != nil {
		t.Fatal(err)
	}
}

func TestLeastConnectionsCountsWhatWorkersSayAndWhatTheyHaveNotSaid(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.LeastConnections(), 3)
	pretend(t, fars[0], 2)
	pretend(t, fars[1], 1)
	// The third is not asked: nobody knows its page.
	accept(t, d, 6)
	wantShares(t, fars, 1, 2, 3)
	pretend(t, fars[0], 0)
	d.choice.counted = time.Time{} // it is some time later
	accept(t, d, 3)
	wantShares(t, fars, 3, 3, 3) // what is not acknowledged counts
}

func TestClaimsAreBounded(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.LeastConnections(), 2)
	open := func(n int64) int {
		pretend(t, fars[0], n)
		d.choice.counted = time.Time{}
		d.look(time.Now())
		return d.choice.views[0].Open
	}
	for n, want := range map[int64]int{0: 0, 7: 7, -1: 0, -1 << 63: 0, 1<<63 - 1: maxCounted} {
		if got := open(n); got != want {
			t.Errorf("%d counts as %d", n, got)
		}
	}
	if err := fars[0].w.page.Truncate(3); err != nil {
		t.Fatal(err)
	}
	d.choice.counted = time.Time{}
	if d.look(time.Now()); d.choice.views[0].Open != 0 {
		t.Errorf("without counters %d are open", d.choice.views[0].Open)
	}
	d.serve(windowsOf(fars), d.serving, nil, rule{policy: dispatch.RoundRobin()})
	if open(7) != 0 {
		t.Error("a policy that does not want to know is told what workers say")
	}
}

// TestLiarLeavesOthersTheirShare: a worker that acknowledges everything and says
// that it has nothing gets three of four.
func TestLiarLeavesOthersTheirShare(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.LeastConnections(), 3)
	pretend(t, fars[0], -5)
	for i := range 120 {
		d.choice.counted = time.Time{}
		accept(t, d, 1)
		for _, a := range fars {
			if len(a.w.unacked) > 0 {
				a.ack(a.recv()...)
			}
		}
		pretend(t, fars[1], int64(100+i))
		pretend(t, fars[2], int64(100+i))
	}
	wantShares(t, fars, 90, 15, 15)
}

// ends are two ends of a connection.
func ends(t *testing.T, network, addr string) (client net.Conn, fd int) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Skipf("%s: %v", addr, err)
	}
	defer l.Close()
	to := l.Addr().String()
	if addr == "[::]:0" { // an IPv4 client of an IPv6 socket
		_, port, _ := net.SplitHostPort(to)
		to = "127.0.0.1:" + port
	}
	client, err = net.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	switch c := c.(type) {
	case *net.TCPConn:
		fd = detach(t, c)
	case *net.UnixConn:
		fd = detach(t, c)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return client, fd
}

func TestClientsAddress(t *testing.T) {
	var r remote
	for _, tt := range []struct{ network, addr string }{{"tcp4", "127.0.0.1:0"}, {"tcp", "[::1]:0"}, {"tcp", "[::]:0"}} {
		client, fd := ends(t, tt.network, tt.addr)
		want := netip.MustParseAddrPort(client.LocalAddr().String())
		if got := r.of(fd); got != want {
			t.Errorf("%v: %v, want %v", tt, got, want)
		}
		_ = client.(*net.TCPConn).SetLinger(0)
		client.Close()
		for end := time.Now().Add(patience); r.of(fd).IsValid(); {
			if time.Now().After(end) {
				t.Fatal("a connection that was reset still has a client")
			}
		}
	}
	_, fd := ends(t, "unix", t.TempDir()+"/s")
	if got := r.of(fd); got.IsValid() {
		t.Errorf("a Unix socket has %v", got)
	}
	if got := r.of(-1); got.IsValid() {
		t.Errorf("nothing has %v", got)
	}
}

func TestOnlyWhoAsksIsToldTheClient(t *testing.T) {
	_, fd := ends(t, "tcp4", "127.0.0.1:0")
	var seen []dispatch.Conn
	see := scripted(func(c dispatch.Conn, _ []dispatch.Worker) int { seen = append(seen, c); return 0 })
	d, fars := newTestDispatcher(t, see, 1)
	h := &held{fd: fd, listener: 1, id: 7}
	d.look(time.Now())
	d.choose(h, time.Now())
	d.serve(windowsOf(fars), d.serving, nil, rule{policy: curious{see}})
	d.look(time.Now())
	d.choose(h, time.Now())
	if len(seen) != 2 || seen[0].Client.IsValid() || !seen[1].Client.IsValid() || seen[1].ID != 7 || seen[1].Listener != 1 {
		t.Errorf("seen %+v", seen)
	}
}

type curious struct{ scripted }

func (curious) ByClient() {}

func TestHashKeepsClientsWhereTheyAre(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.Hash(), 4)
	_, fd := ends(t, "tcp4", "127.0.0.1:0")
	now := time.Now()
	d.look(now)
	first := d.choose(&held{fd: fd}, now)
	for range 10 {
		if w := d.choose(&held{fd: fd}, now); w != first {
			t.Errorf("slot %d, was %d", w.slot, first.slot)
		}
	}
	first.stalled = true
	d.look(now)
	second := d.choose(&held{fd: fd}, now)
	if second == nil || second == first {
		t.Fatalf("with %d full it is %+v", first.slot, second)
	}
	first.stalled = false
	if d.look(now); d.choose(&held{fd: fd}, now) != first {
		t.Error("it does not come back")
	}
	// Another generation, and another process in the slot.
	l := newLedger(2)
	var next []*window
	for slot := 4; slot >= 1; slot-- {
		a := newFar(t, d, slot, l)
		fars = append(fars, a)
		next = append(next, a.w)
	}
	d.serve(next, l, nil, rule{policy: dispatch.Hash()})
	d.look(now)
	if w := d.choose(&held{fd: fd}, now); w.slot != first.slot || w == first {
		t.Errorf("in the next generation slot %d, was %d", w.slot, first.slot)
	}
}

func TestWeightsOfTheOperatorWin(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.Weighted(2, 1), 3)
	accept(t, d, 8)
	wantShares(t, fars, 4, 2, 2)
	d.serve(windowsOf(fars), d.serving, nil, rule{weights: map[int]int{1: 0, 3: 2, 9: 5}})
	accept(t, d, 6)
	wantShares(t, fars, 4, 4, 6)
	d.serve(windowsOf(fars), d.serving, nil, rule{})
	accept(t, d, 4)
	wantShares(t, fars, 6, 5, 7)
	for slot, want := range d.weightsOf(4) {
		if w := map[int]int{1: 2, 2: 1, 3: 1, 4: 1}; want != w[slot] {
			t.Errorf("slot %d has weight %d", slot, want)
		}
	}
}

// heavy is a policy with weights that cannot be.
type heavy struct{ scripted }

func (heavy) Weight(slot int) int {
	if slot == 3 {
		panic("too heavy")
	}
	return []int{-7, 1 << 40}[slot-1]
}

func TestWeightsOfAPolicyAreNotBelieved(t *testing.T) {
	p := heavy{func(dispatch.Conn, []dispatch.Worker) int { return 0 }}
	d, fars := newTestDispatcher(t, p, 2)
	told := accusations(d)
	if fars[0].w.weight != 0 || fars[1].w.weight != dispatch.MaxWeight || len(*told) > 0 {
		t.Errorf("weights %d and %d, told %+v", fars[0].w.weight, fars[1].w.weight, *told)
	}
	three := newFar(t, d, 3, d.serving)
	d.serve(append(windowsOf(fars), three.w), d.serving, nil, rule{})
	if d.choice.name != "round-robin" || len(*told) != 1 {
		t.Errorf("%s is asked, told %+v", d.choice.name, *told)
	}
	accept(t, d, 3)
	wantShares(t, append(fars, three), 1, 1, 1)
	closeAll(d, []*far{three})
}

// TestChoosingDoesNotAllocate: not by any policy, in a master's steady state.
func TestChoosingDoesNotAllocate(t *testing.T) {
	_, fd := ends(t, "tcp4", "127.0.0.1:0")
	for _, p := range []dispatch.Policy{dispatch.RoundRobin(), dispatch.Weighted(3, 1), dispatch.LeastConnections(), dispatch.Hash()} {
		d, fars := newTestDispatcher(t, p, 4)
		for _, a := range fars {
			pretend(t, a, 3)
		}
		h := &held{fd: fd}
		if n := testing.AllocsPerRun(100, func() {
			now := time.Now()
			d.choice.counted = time.Time{}
			d.look(now)
			if d.choose(h, now) == nil {
				t.Fatal("nobody has room")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for a connection", p.Name(), n)
		}
	}
}

// BenchmarkChoose is all that the choice of a worker costs a master, system calls
// included.
func BenchmarkChoose(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	file, err := client.(*net.TCPConn).File()
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for _, p := range []dispatch.Policy{dispatch.RoundRobin(), dispatch.Weighted(3, 1), dispatch.LeastConnections(), dispatch.Hash()} {
		for _, workers := range []int{2, 8} {
			b.Run(fmt.Sprintf("%s/%d", p.Name(), workers), func(b *testing.B) {
				d := newDispatcher(p)
				page, err := os.CreateTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				defer page.Close()
				_ = page.Truncate(pageSize)
				var ws []*window
				for slot := 1; slot <= workers; slot++ {
					w := d.newWindow(nil, slot, nil)
					w.page = page
					ws = append(ws, w)
				}
				d.serve(ws, nil, nil, rule{})
				h := &held{fd: int(file.Fd())}
				b.ReportAllocs()
				for b.Loop() {
					now := time.Now()
					d.look(now)
					d.choose(h, now)
				}
			})
		}
	}
}
