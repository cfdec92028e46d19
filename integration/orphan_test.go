//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// Workers without a master: how long they may live, and whom a new one believes.

// Nobody starts the master again, so the port is freed: as an IDE's stop button
// expects.
func TestUnsupervisedWorkersLeaveWithTheirMaster(t *testing.T) {
	for name, opts := range map[string][]serviceOption{
		"by default":                   nil,
		"supervised, and told to":      {withEnv("NOTIFY_SOCKET=/nowhere", "BATON_ORPHAN_TIMEOUT=0s")},
		"nothing can be written down":  {withEnv(supervised)},
		"killed when told to stop":     {withEnv(supervised, "BATON_STOP_DELAY=20s")},
		"killed while the stop drains": {withEnv(supervised)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait, mostly
			s := startService(t, appConfig{Workers: 2}, opts...)
			if name == "nothing can be written down" {
				// Before it is ready: a directory cannot be replaced by a file.
				if err := os.MkdirAll(filepath.Join(s.dir, "run", "workers.json", "x"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			s.waitServing()
			slow := askSlowly(s, 1500*time.Millisecond)
			switch name {
			case "nothing can be written down":
				s.waitLog("the record of the workers cannot be written")
				if n := s.countLog("the record of the workers cannot be written"); n != 1 {
					t.Errorf("it is said %d times", n)
				}
				defer os.RemoveAll(filepath.Join(s.dir, "run", "workers.json"))
			case "killed when told to stop", "killed while the stop drains":
				s.signal(syscall.SIGTERM)
				s.waitStatus("it stops", func(st control.Status) bool {
					return st.State == control.StateStopping && (name == "killed when told to stop" || st.Generations[0].State == control.GenerationDraining)
				})
			}
			s.killMaster()
			requireFreed(t, s.addr, soon)
			if err := <-slow; err != nil {
				t.Errorf("the request under way: %v", err)
			}
			s.waitProcesses(0)
		})
	}
}

func TestServiceManagerMakesItSupervised(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv("NOTIFY_SOCKET=/nowhere"))
	s.killMaster()
	if a := s.get("/version"); a.version != "v1" {
		t.Errorf("%+v", a)
	}
	s.restart()
	requireSettled(s)
}

// When nobody comes, orphans finish what they have and leave.
func TestOrphansLeaveWhenNobodyComes(t *testing.T) {
	s := newService(t, withPIDFile(t, appConfig{Workers: 2}), withEnv("BATON_ORPHAN_TIMEOUT=1s"))
	s.killMaster()
	slow := s.openRequests(4, "/slow?d=2s")
	requireLeft(t, s.addr, 1*time.Second+soon)
	requireAnswers(t, slow, waitTime)
	requireNothingLeft(s)
}

// A service manager that stops a unit sends TERM to all that is left of it. An
// operator has batonctl. What they have under way they finish, and remove what the
// master cannot.
func TestOrphansLeaveWhenToldTo(t *testing.T) {
	batonctlStop := func(s *service, args ...string) {
		code, out, said := ctl(s.t, append([]string{"--runtime-dir", filepath.Join(s.dir, "run"), "stop"}, args...)...)
		if code != 0 || !strings.Contains(out, "workers that leave: 2") {
			s.t.Errorf("batonctl stop: exit status %d: %s%s", code, out, said)
		}
	}
	const hurried = "batonctl in a hurry"
	for name, tell := range map[string]func(*service, []control.Worker){
		"TERM": func(s *service, ws []control.Worker) {
			for _, w := range ws {
				signalPID(s.t, w.PID, syscall.SIGTERM)
			}
		},
		"batonctl": func(s *service, _ []control.Worker) { batonctlStop(s) },
		hurried:    func(s *service, _ []control.Worker) { batonctlStop(s, "--now") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "app.sock")
			s := newService(t, withPIDFile(t, appConfig{Workers: 2, Listeners: []config.Listener{
				{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}, {Network: "unix", Addr: socket, Name: "local"},
			}}), withEnv(supervised))
			requireCoherent(s, "", 2) // they are trusted
			workers := s.workers()
			s.killMaster()
			path := "/slow?d=1s"
			if name == hurried {
				path = "/slow?d=20s" // longer than anything here is waited for
			}
			slow := s.openRequests(4, path)
			eventually(t, waitTime, "they are accepted", func() bool { return queueLength(t, s.addr) == 0 })
			tell(s, workers)
			requireLeft(t, s.addr, soon)
			if name != hurried {
				requireAnswers(t, slow, waitTime)
			}
			requireNothingLeft(s)
			if _, err := os.Lstat(socket); err == nil {
				t.Error("the socket file is left")
			}
			if code, _, said := ctl(t, "--runtime-dir", filepath.Join(s.dir, "run"), "stop"); code != 3 {
				t.Errorf("batonctl stop of nobody: exit status %d: %s", code, said)
			}
		})
	}
}

// requireLeft is requireFreed for orphans, of which none knows that it is the last
// one: who connects in that very moment may see a reset.
func requireLeft(t *testing.T, addr string, bound time.Duration) {
	t.Helper()
	eventually(t, bound, addr+" refuses connections", func() bool {
		c, err := net.DialTimeout("tcp", addr, dialTime)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	requireFreed(t, addr, soon)
}

// queueLength is how many connections wait in the kernel at addr.
func queueLength(t *testing.T, addr string) int {
	t.Helper()
	listening := listeningAt(t, addr)
	if len(listening) == 0 {
		t.Fatalf("nobody listens at %s", addr)
	}
	_, queued, _ := strings.Cut(listening[0][4], ":")
	n, err := strconv.ParseInt(queued, 16, 32)
	if err != nil {
		t.Fatalf("%q: %v", listening[0], err)
	}
	return int(n)
}

// listeningAt has a line of /proc/net/tcp for each socket that listens at addr:
// number, local, remote, state, queues, and what else there is.
func listeningAt(t *testing.T, addr string) (sockets [][]string) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
			sockets = append(sockets, f)
		}
	}
	return sockets
}

// A stop frees the port though a worker that has a copy of it stands still.
func TestStopFreesThePortOfAWorkerThatHangs(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newService(t, appConfig{Workers: 2, Options: appOptions{StopTimeout: new(4 * time.Second), KillTimeout: new(time.Second)}}, withEnv(supervised))
	requireCoherent(s, "", 2) // they are trusted
	stopProcess(t, s.workers()[0].PID)
	s.signal(syscall.SIGTERM)
	requireFreed(t, s.addr, 4*time.Second/sweepShare+soon)
	s.waitProcesses(0)
	requireNothingLeft(s)
}

// A record can name anybody: processes that have the pid of a worker that is
// dead, or that never was one. They are left alone, and the service starts.
func TestForeignProcessInTheRecordIsLeftAlone(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised))
	requireCoherent(s, "v1", 2)
	workers := s.workers()
	record := readRecord(t, s)
	s.killMaster()
	for _, w := range workers {
		signalPID(t, w.PID, syscall.SIGKILL)
	}
	s.waitProcesses(0)

	// One that runs since before, and one whose start is not what the record says.
	strangers := []process{startStranger(t), startStranger(t)}
	gens := record["generations"].([]any)
	for i, w := range gens[0].(map[string]any)["workers"].([]any) {
		w := w.(map[string]any)
		w["pid"] = strangers[i].PID
		if i == 0 {
			w["start"] = strangers[i].Start
		}
	}
	writeRecord(t, s, record)
	if code, out, said := ctl(t, "--runtime-dir", filepath.Join(s.dir, "run"), "stop"); code != 3 {
		t.Errorf("batonctl stop: exit status %d: %s%s", code, out, said)
	}
	began := time.Now()
	s.restart()
	t.Logf("serves after %v", time.Since(began))
	s.addr = dialable(s.last.Listeners[0]) // nobody has brought the old one
	requireCoherent(s, "v1", 2)
	s.signal(syscall.SIGTERM)
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, p := range strangers {
		if gone(p) {
			t.Errorf("process %d, which is no worker, is gone", p.PID)
		}
	}
}

func startStranger(t *testing.T) process {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := readProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func recordPath(s *service) string { return filepath.Join(s.dir, "run", "workers.json") }

func readRecord(t *testing.T, s *service) map[string]any {
	t.Helper()
	b, err := os.ReadFile(recordPath(s))
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	return record
}

func writeRecord(t *testing.T, s *service, record map[string]any) {
	t.Helper()
	b, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordPath(s), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a dead master leaves is no obstacle, whatever it looks like.
func TestBadRecordIsNoObstacle(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "garbage": "\x00{", "of another version": `{"version":99}`, "of nobody": `{"version":1,"generations":[]}`,
		"absurd": `{"version":1,"generations":[{"number":-1,"workers":[{"pid":-1,"slot":0}]},{"number":2,"workers":[{"pid":1,"start":1,"slot":1,"nonce":"x"}]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := deployed(t, appConfig{Version: "v1", Workers: 1, Listeners: []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}}, withEnv(supervised))
			if err := os.Mkdir(filepath.Join(s.dir, "run"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(recordPath(s), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			s.launch()
			s.waitServing()
			requireCoherent(s, "v1", 1)
			s.signal(syscall.SIGTERM)
			if code := s.exitCode(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if names := runtimeDir(s); len(names) > 0 {
				t.Errorf("the runtime directory holds %v", names)
			}
		})
	}
}

// The environment of workers is not written down: it holds secrets.
func TestRecordHoldsNoEnvironment(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 1}, withEnv(supervised, "SECRET=xyzzy"))
	requireCoherent(s, "v1", 1)
	info, err := os.Stat(recordPath(s))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the record: %v, %v; want mode 0600", info, err)
	}
	b, err := os.ReadFile(recordPath(s))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 || bytes.Contains(b, []byte("xyzzy")) {
		t.Errorf("the record: %s", b)
	}
	// Whoever is started in the place of an adopted worker has it all the same.
	cfg := s.cfg
	cfg.Fail = config.FailBuild
	s.install(cfg)
	s.crash()
	killOne(s)
	requireCoherent(s, "v1", 1)
	if a := s.get("/env?name=SECRET"); a.body != "xyzzy" || a.worker != "1.1" {
		t.Errorf("the worker in its place: %+v", a)
	}
}

// The load goes on over a master that is killed again and again by chance, with
// everything else that happens to a service.
func TestMasterKilledAmongDeploysLosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := newService(t, withPIDFile(t, appConfig{Version: "v1", Workers: 2}), withEnv(supervised))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2}, load.Plan{Class: load.Slow, Clients: 2}), SlowFor: 300 * time.Millisecond})
	kills := 0
	for end := time.Now().Add(tier(4*time.Second, 30*time.Second)); time.Now().Before(end); {
		if v := s.reload(); !v.OK {
			t.Fatalf("reload: %+v", v)
		}
		s.crash()
		if v := s.upgrade(); !v.OK {
			t.Fatalf("upgrade: %+v", v)
		}
		s.crash()
		kills += 2
		if v := s.scale(3); !v.OK {
			t.Fatalf("scale: %+v", v)
		}
		s.waitWorkers(3)
		s.crash()
		kills++
		s.waitWorkers(3) // as an operator has set it
		s.scale(2)
		s.waitWorkers(2)
	}
	requireOnlyUnsent(s, finish(), kills)
	requireCoherent(s, "v1", 2)
	requireStops(s)
}
