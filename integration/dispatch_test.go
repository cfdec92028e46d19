//go:build linux

package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// slotOf is the slot of the worker that answered.
func slotOf(t *testing.T, a answer) int {
	t.Helper()
	var generation, slot int
	if _, err := fmt.Sscanf(a.worker, "%d.%d", &generation, &slot); err != nil {
		t.Fatalf("the worker of %+v: %v", a, err)
	}
	return slot
}

// slots are those of the next n connections, one after the other.
func (s *service) slots(n int) (out []int) {
	s.t.Helper()
	for range n {
		out = append(out, slotOf(s.t, s.get("/")))
	}
	return out
}

// requireSlots requires the slots of the next connections. Of a number of whole
// rounds, the first may be anywhere in its round.
func requireSlots(s *service, what string, round []int) {
	s.t.Helper()
	got := s.slots(3 * len(round))
	for turn := range round {
		if slices.Equal(got, slices.Repeat(slices.Concat(round[turn:], round[:turn]), 3)) {
			return
		}
	}
	s.t.Errorf("%s: connections go to slots %v, want rounds of %v", what, got, round)
}

// requireDispatch requires the policy in force, and weights if there are any.
func requireDispatch(s *service, policy string, weights ...int) {
	s.t.Helper()
	g := s.serving()
	if g.Dispatch != policy {
		s.t.Errorf("dispatch by %s, want %s", g.Dispatch, policy)
	}
	var got []int
	for _, w := range g.Processes {
		if w.Weight != nil {
			got = append(got, *w.Weight)
		}
	}
	if !slices.Equal(got, weights) {
		s.t.Errorf("weights %v, want %v", got, weights)
	}
}

func (s *service) weigh(weights map[int]int) control.Verdict {
	s.t.Helper()
	return s.verdict("weight", func(ctx context.Context) (control.Verdict, error) {
		return s.client.Weight(ctx, control.WeightRequest{Weights: weights})
	})
}

func mustDeploy(t *testing.T, v control.Verdict) {
	t.Helper()
	if !v.OK {
		t.Fatalf("%+v", v)
	}
}

func TestWeightsShareConnectionsAndCanBeChanged(t *testing.T) {
	s := newService(t, appConfig{Workers: 2}, withEnv("BATON_DISPATCH=weighted:3,1"))
	s.waitLog("dispatch=weighted:3,1 from BATON_DISPATCH, default round-robin")
	requireDispatch(s, "weighted:3,1", 3, 1)
	requireSlots(s, "as configured", []int{1, 1, 2, 1})

	c, out, _ := ctl(t, "--runtime-dir", filepath.Join(s.dir, "run"), "weight", "2=3", "1=1")
	if c != 0 || !strings.Contains(out, "weight: done (0s): weights 1=1 2=3, until the next generation serves\n") {
		t.Errorf("batonctl: %d, %s", c, out)
	}
	requireDispatch(s, "weighted:3,1", 1, 3)
	requireSlots(s, "changed", []int{2, 2, 1, 2})
	mustDeploy(t, s.weigh(map[int]int{2: 0}))
	requireSlots(s, "a weight of 0", []int{1})
	for _, bad := range []map[int]int{{3: 1}, {1: 1001}, {1: 2, 2: -1}} {
		if v := s.weigh(bad); v.OK || !strings.Contains(v.Reason, "expected") {
			t.Errorf("%v: %+v", bad, v)
		}
	}
	requireDispatch(s, "weighted:3,1", 1, 0)

	// The slot keeps its weight when its worker dies.
	victim := s.workers()[1]
	signalPID(t, victim.PID, syscall.SIGKILL)
	s.waitStatus("another worker", func(st control.Status) bool { return complete(st) && serving(st).Processes[1].PID != victim.PID })
	requireDispatch(s, "weighted:3,1", 1, 0)
	requireSlots(s, "after a respawn", []int{1})

	// The next generation has its own.
	mustDeploy(t, s.reload())
	requireDispatch(s, "weighted:3,1", 3, 1)
	requireSlots(s, "after a reload", []int{1, 1, 2, 1})
	mustDeploy(t, s.weigh(map[int]int{1: 0}))
	mustDeploy(t, s.upgrade())
	requireDispatch(s, "weighted:3,1", 3, 1)
	requireSlots(s, "after an upgrade", []int{1, 1, 2, 1})
	mustDeploy(t, s.weigh(map[int]int{1: 1}))
	mustDeploy(t, s.scale(3))
	s.waitStatus("three workers", func(st control.Status) bool { return complete(st) && len(serving(st).Processes) == 3 })
	requireDispatch(s, "weighted:3,1", 1, 1, 1)
	requireSlots(s, "of three", []int{1, 2, 3})
	checkLedger(t, s.status())
}

// TestWeightsOutliveTheMaster: should the next generation be refused, the adopted
// one is served as before.
func TestWeightsOutliveTheMaster(t *testing.T) {
	s := newService(t, appConfig{Workers: 2, Options: appOptions{Dispatch: "weighted"}}, withArgs("OrphanTimeout=1m"))
	mustDeploy(t, s.weigh(map[int]int{2: 3}))
	eventually(t, waitTime, "the record has the weights", func() bool {
		b, _ := os.ReadFile(filepath.Join(s.dir, "run", "workers.json"))
		return strings.Contains(string(b), `"weights":{"2":3}`)
	})
	bad := s.cfg
	bad.Fail = config.FailBuild
	s.install(bad)
	s.crash()
	requireDispatch(s, "weighted", 1, 3)
	s.waitStatus("the new master accepts", func(st control.Status) bool { return st.Accepting })
	// An orphan that waits for a connection may get one before it hears of that.
	eventually(t, waitTime, "the master dispatches", func() bool {
		before := s.serving()
		s.get("/")
		after := s.serving()
		return dispatchedTo(&after) > dispatchedTo(&before)
	})
	requireSlots(s, "after a crash", []int{2, 2, 1, 2})
}

// from asks for "/" as a client with that address.
func (s *service) from(addr string) answer {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: waitTime}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(waitTime))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatalf("as %s: %v", addr, err)
	}
	defer res.Body.Close()
	return answer{status: res.StatusCode, worker: res.Header.Get("X-Worker")}
}

func TestHashKeepsClientsInTheirSlot(t *testing.T) {
	const n = 60
	s := newService(t, appConfig{Workers: 3}, withEnv("BATON_DISPATCH=hash"))
	requireDispatch(s, "hash")
	where := func() map[string]int {
		t.Helper()
		slots := map[string]int{}
		for i := range n {
			client := fmt.Sprintf("127.0.%d.1", i)
			slots[client] = slotOf(t, s.from(client))
		}
		return slots
	}
	shares := func(slots map[string]int) [5]int {
		var out [5]int
		for _, slot := range slots {
			out[slot]++
		}
		return out
	}
	first := where()
	if got := shares(first); slices.Min(got[1:4]) < n/10 {
		t.Errorf("shares %v of %d clients", got, n)
	}
	same := func(what string) {
		t.Helper()
		if now := where(); !maps.Equal(now, first) {
			t.Errorf("%s: clients are elsewhere: %v, were %v", what, now, first)
		}
	}
	same("again")
	mustDeploy(t, s.reload())
	same("after a reload")
	mustDeploy(t, s.upgrade())
	same("after an upgrade")

	victim := s.workers()[1]
	signalPID(t, victim.PID, syscall.SIGKILL)
	s.waitStatus("another worker", func(st control.Status) bool { return complete(st) && serving(st).Processes[1].PID != victim.PID })
	same("after a respawn")

	// While one does not answer, its clients are elsewhere, and only they.
	hung := s.workers()[0]
	signalPID(t, hung.PID, syscall.SIGSTOP)
	s.waitStatus("it is out of rotation", func(st control.Status) bool { return serving(st).Processes[0].State == control.WorkerStalled })
	for client, slot := range where() {
		if slot == 1 || first[client] != 1 && slot != first[client] {
			t.Errorf("%s is in slot %d, was %d; 1 is stopped", client, slot, first[client])
		}
	}
	signalPID(t, hung.PID, syscall.SIGCONT)
	s.waitStatus("it is back", complete)
	same("when it answers again")

	mustDeploy(t, s.scale(4))
	s.waitStatus("four workers", func(st control.Status) bool { return complete(st) && len(serving(st).Processes) == 4 })
	more := where()
	for client, slot := range more {
		if slot != first[client] && slot != 4 {
			t.Errorf("%s moves from slot %d to %d", client, first[client], slot)
		}
	}
	if got := shares(more); got[4] < n/12 || got[4] > n/2 {
		t.Errorf("the fourth worker has %d of %d clients", got[4], n)
	}
	mustDeploy(t, s.scale(3))
	s.waitStatus("three workers", func(st control.Status) bool { return len(serving(st).Processes) == 3 })
	same("of three again")
	checkLedger(t, s.status())
}

func TestHashOverUnixSocketsGoesInTurn(t *testing.T) {
	s := newService(t, appConfig{Workers: 3}, withEnv("BATON_DISPATCH=hash"), withArgs("Listen=unix,app.sock,local"))
	socket := s.addrOf("local")
	var got []int
	for range 6 {
		a, err := ask(filepath.Join(s.dir, filepath.Base(socket)), "/", waitTime)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, slotOf(t, a))
	}
	if !slices.Equal(got, []int{1, 2, 3, 1, 2, 3}) {
		t.Errorf("connections go to slots %v", got)
	}
}

func TestLeastConnectionsEvensOut(t *testing.T) {
	s := newService(t, appConfig{Workers: 2, Serve: true}, withEnv("BATON_DISPATCH=least-connections"))
	requireDispatch(s, "least-connections")
	open := func() (n []int) {
		t.Helper()
		for _, w := range s.workers() {
			n = append(n, int(w.Open))
		}
		return n
	}
	// slot of a connection that stays.
	kept := map[int][]net.Conn{}
	keep := func(n int) {
		t.Helper()
		for range n {
			before := open()
			c, err := net.DialTimeout("tcp", s.addr, waitTime)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			s.waitStatus("it is accepted", func(st control.Status) bool {
				g := serving(st)
				for i, w := range g.Processes {
					if int(w.Open) == before[i]+1 && w.Unacked == 0 {
						kept[i] = append(kept[i], c)
						return true
					}
				}
				return false
			})
		}
	}
	keep(6)
	if got := open(); got[0] != 3 || got[1] != 3 {
		t.Fatalf("open connections %v", got)
	}
	for _, c := range kept[1] {
		c.Close()
	}
	s.waitStatus("they have ended", func(st control.Status) bool { return serving(st).Processes[1].Open == 0 })
	keep(4) // three in a row at most: the last one is a tie
	if got := open(); got[0]+got[1] != 7 || got[1] < 3 {
		t.Errorf("open connections %v", got)
	}
	checkLedger(t, s.status())
}

func TestUnknownPolicyMakesAnUpgradeOfTheReload(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	first := s.masterPID()
	deploy := func(version, policy string) {
		t.Helper()
		cfg := s.cfg
		cfg.Version, cfg.Options.Dispatch = version, policy
		s.install(cfg)
		mustDeploy(t, s.reload())
		if a := s.get("/version"); a.body != version {
			t.Errorf("%s serves, want %s", a.body, version)
		}
	}
	deploy("v2", "hash") // which every master has
	requireDispatch(s, "hash")
	if now := s.masterPID(); now != first {
		t.Errorf("the master is %d, was %d", now, first)
	}

	deploy("v3", "last")
	s.waitLog("it changes Dispatch to last: that takes a new master")
	second := s.masterPID()
	if second == first {
		t.Error("the master is the same")
	}
	requireDispatch(s, "last")
	requireSlots(s, "of the application's own", []int{2})

	// The new master has it, and goes on having it.
	deploy("v4", "")
	requireDispatch(s, "round-robin")
	requireSlots(s, "the default", []int{1, 2})
	deploy("v5", "last")
	requireSlots(s, "again", []int{2})

	// One that no master has is refused, and so is an upgrade to it.
	cfg := s.cfg
	cfg.Version, cfg.Options.Dispatch = "v6", "worker-panics"
	s.install(cfg)
	for _, deploy := range []func() control.Verdict{s.reload, s.upgrade} {
		if v := deploy(); v.OK || !strings.Contains(v.Reason, "it changes Dispatch to panics") {
			t.Errorf("%+v", v)
		}
	}
	requireSlots(s, "as before", []int{2})
	if now := s.masterPID(); now != second {
		t.Errorf("the master is %d, was %d", now, second)
	}
	checkLedger(t, s.status())
}

func TestPanicOfAPolicyEndsNothing(t *testing.T) {
	s := newService(t, appConfig{Workers: 2, Options: appOptions{Dispatch: "panics"}})
	if got := s.slots(10); !slices.Equal(got, []int{2, 2, 2, 2, 1, 2, 1, 2, 1, 2}) {
		t.Errorf("connections go to slots %v", got)
	}
	requireDispatch(s, "round-robin")
	s.waitLog(`round-robin in place of the dispatch policy`)
	if n := s.countLog("testapp: panics as told"); n != 1 {
		t.Errorf("%d lines tell of it", n)
	}
	mustDeploy(t, s.reload()) // with the same policy, which is not trusted again
	requireSlots(s, "after a reload", []int{1, 2})
	checkLedger(t, s.status())
}

func TestEnvFileChangesThePolicyWithAReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app.env")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	s := newService(t, appConfig{Workers: 2, Options: appOptions{EnvFile: file}})
	master := s.masterPID()
	write("BATON_DISPATCH=weighted:1,3\n")
	mustDeploy(t, s.reload())
	requireDispatch(s, "weighted:1,3", 1, 3)
	requireSlots(s, "of the file", []int{2, 2, 1, 2})

	write("BATON_DISPATCH=fastest\n")
	v := s.reload()
	if want := `BATON_DISPATCH="fastest"`; v.OK || !strings.Contains(v.Reason, "exit status 78") || !strings.Contains(v.Stderr, want) {
		t.Errorf("%+v", v)
	}
	requireDispatch(s, "weighted:1,3", 1, 3)
	if now := s.masterPID(); now != master {
		t.Errorf("the master is %d, was %d", now, master)
	}
}

func TestExamplePolicyKeepsNetworksTogether(t *testing.T) {
	s := exampleService(t, "policy")
	requireDispatch(s, "by-network")
	worker := func(client string) string {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}, Timeout: waitTime}
		c, err := d.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(waitTime))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(c)
		_, id, found := strings.Cut(strings.TrimSpace(string(b)), "from worker ")
		if err != nil || !found {
			t.Fatalf("%q, %v", b, err)
		}
		return id
	}
	used := map[string]bool{}
	for i := range 8 {
		a, b := worker(fmt.Sprintf("127.0.%d.1", i)), worker(fmt.Sprintf("127.0.%d.254", i))
		if a != b {
			t.Errorf("one network is served by %s and %s", a, b)
		}
		used[a] = true
	}
	if len(used) != 2 {
		t.Errorf("eight networks are served by %v", used)
	}
}
