//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// deployed is a release that was not started: on disk, with an environment and
// arguments. Unlike those of newService it has no listener unless cfg has.
func deployed(t *testing.T, cfg appConfig, opts ...serviceOption) *service {
	t.Helper()
	dir, err := os.MkdirTemp(rootDir, "")
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	s := &service{
		t: t, cfg: cfg, app: testapp, dir: dir, binary: filepath.Join(dir, "app"),
		client: control.NewClient(filepath.Join(run, "control.sock")),
		log:    newLogBuffer(), exited: make(chan struct{}),
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir,
			"BATON_RUNTIME_DIR=" + run, "TESTAPP_STARTS=" + filepath.Join(dir, "starts"),
			"GORACE=atexit_sleep_ms=0",
		},
	}
	for _, o := range opts {
		o(s)
	}
	if err := s.replace(testapp, 0o755, func(w io.Writer) error { return config.Append(w, cfg) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.session != 0 {
			s.end()
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

// outcome is what became of a start that ended by itself.
type outcome struct {
	code   int
	output string
	starts int // processes of the application that there were
}

// runToEnd starts the release beside whatever runs, and waits for its end. The
// last of several variables of one name counts.
func (s *service) runToEnd(env []string, args ...string) outcome {
	s.t.Helper()
	return s.runAs(nil, env, args...)
}

func (s *service) runAs(who *syscall.Credential, env []string, args ...string) outcome {
	s.t.Helper()
	starts := filepath.Join(s.dir, "starts")
	before, _ := os.ReadFile(starts)
	ctx, cancel := deadline(startTime)
	defer cancel()
	cmd := s.limited(exec.CommandContext(ctx, s.binary, append(append([]string(nil), s.args...), args...)...))
	cmd.Dir, cmd.Env = s.dir, append(append([]string(nil), s.env...), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: who}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		s.t.Fatalf("%q %q did not end:\n%s", env, args, out)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%q %q: %v\n%s", env, args, err, out)
	}
	after, _ := os.ReadFile(starts)
	return outcome{cmd.ProcessState.ExitCode(), string(out), bytes.Count(after, []byte("\n")) - bytes.Count(before, []byte("\n"))}
}

// requireExit checks the exit status, and that all parts are said.
func requireExit(t *testing.T, o outcome, code int, parts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit status %d, want %d", o.code, code)
	}
	for _, p := range parts {
		if !strings.Contains(o.output, p) {
			t.Errorf("no %q", p)
		}
	}
	if o.starts != 1 {
		t.Errorf("%d processes were started, want the first alone", o.starts)
	}
	if t.Failed() {
		t.Logf("it said:\n%s", o.output)
	}
}

// takenPort returns the address of a listener of ours: whoever binds it fails,
// whatever else is wrong with it.
func takenPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// freePort is one that nobody is given by chance: below those of connections.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if ln, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

const (
	whole    = "expected a whole number from 0 to 1024"
	draining = "expected a whole number from 1 to 256"
	duration = `expected a duration such as "30s", from 0s up to 720h`
	above    = `expected a duration such as "30s", above 0s, up to 720h`
	path     = "expected a path without NUL bytes"
)

func TestBadEnvironmentIsRefusedBeforeAnythingIsDone(t *testing.T) {
	s := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: takenPort(t), Name: "main"}}})
	for _, tt := range []struct{ name, value, expected string }{
		{"BATON_WORKERS", "many", whole},
		{"BATON_WORKERS", "-1", whole},
		{"BATON_WORKERS", "1025", whole},
		{"BATON_MAX_DRAINING", "0", draining},
		{"BATON_DRAIN_TIMEOUT", "30", duration},
		{"BATON_STOP_TIMEOUT", "soon", duration},
		{"BATON_STOP_DELAY", "-1s", duration},
		{"BATON_STOP_DELAY", "30s", "expected StopDelay to be shorter than StopTimeout"},
		{"BATON_READY_TIMEOUT", "0s", above},
		{"BATON_KILL_TIMEOUT", "1d", duration},
		{"BATON_HANG_TIMEOUT", "x", duration},
		{"BATON_GIVE_UP_AFTER", "never", duration},
		{"BATON_IDLE_GRACE", "721h", duration},
		{"BATON_DRAIN_SPREAD", "721h", duration},
		{"BATON_MODE", "cluster", "expected single or master"},
		{"BATON_DISPATCH", "fastest", "expected round-robin, weighted, least-connections or hash"},
		{"BATON_DISPATCH", "weighted:3,-1", "expected weighted:W,W,... with weights from 0 to 1000"},
		{"BATON_DISPATCH", "last", "expected round-robin, weighted, least-connections or hash"}, // which this release does not have
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			o := s.runToEnd([]string{tt.name + "=" + tt.value})
			requireExit(t, o, 78, "baton: invalid configuration", fmt.Sprintf("%s=%q", tt.name, tt.value), tt.expected)
			requireNoRuntimeDir(t, s)
		})
	}
	t.Run("PORT", func(t *testing.T) {
		bare := deployed(t, appConfig{})
		for _, port := range []string{"http", "65536", "-1"} {
			requireExit(t, bare.runToEnd([]string{"PORT=" + port}), 78, fmt.Sprintf("PORT=%q", port), "expected a port number from 0 to 65535")
		}
	})
	t.Run("BATON_ENV_FILE", func(t *testing.T) {
		requireExit(t, s.runToEnd([]string{"BATON_ENV_FILE=" + s.dir + "/none"}), 78,
			fmt.Sprintf("BATON_ENV_FILE=%q", s.dir+"/none"), "no such file or directory")
		requireExit(t, s.runToEnd([]string{"BATON_ENV_FILE=" + s.dir}), 78, "expected a file of NAME=value lines")
		// A bad one of the environment ends the Go runtime before main.
		file := filepath.Join(s.dir, "app.env")
		if err := os.WriteFile(file, []byte("GOMEMLIMIT=512MB\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		requireExit(t, s.runToEnd([]string{"BATON_ENV_FILE=" + file}), 78, `GOMEMLIMIT="512MB" in `+file, "expected bytes as in")
	})
}

// requireNoRuntimeDir: what makes it is also what binds.
func requireNoRuntimeDir(t *testing.T, s *service) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(s.dir, "run")); err == nil {
		t.Error("the runtime directory was made")
	}
}

func TestBadOptionIsRefusedBeforeAnythingIsDone(t *testing.T) {
	addr := takenPort(t)
	s := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: addr, Name: "main"}}})
	for _, tt := range []struct{ arg, said, expected string }{
		{"Workers=-1", "Workers(-1)", whole},
		{"Workers=1025", "Workers(1025)", whole},
		{"MaxDraining=0", "MaxDraining(0)", draining},
		{"MaxDraining=257", "MaxDraining(257)", draining},
		{"DrainTimeout=-1s", "DrainTimeout(-1s)", duration},
		{"StopTimeout=721h", "StopTimeout(721h0m0s)", duration},
		{"StopDelay=-1ms", "StopDelay(-1ms)", duration},
		{"StopDelay=25s", "StopDelay(25s)", "expected StopDelay to be shorter than StopTimeout"},
		{"ReadyTimeout=0s", "ReadyTimeout(0s)", above},
		{"KillTimeout=-1s", "KillTimeout(-1s)", duration},
		{"HangTimeout=-1s", "HangTimeout(-1s)", duration},
		{"GiveUpAfter=-1s", "GiveUpAfter(-1s)", duration},
		{"IdleGrace=-1s", "IdleGrace(-1s)", duration},
		{"DrainSpread=-1s", "DrainSpread(-1s)", duration},
		{`PIDFile="a\x00b"`, `PIDFile("a\x00b")`, path},
		{`RuntimeDir="a\x00b"`, `RuntimeDir("a\x00b")`, path},
		{`EnvFile="a\x00b"`, `EnvFile("a\x00b")`, path},
		{"EnvFile=none", `EnvFile("none")`, "no such file or directory"},
		{"Logger=nil", "Logger(nil)", "expected a logger"},
		{"HTTPServer=nil", "HTTPServer(nil)", "expected a function"},
		{"Dispatch=nil", "Dispatch(nil)", "expected a policy, such as"},
		{"Dispatch=forged", "Dispatch(hash)", "expected a name of its own"},
		{"StopOn=nil", "StopOn(nil)", "expected a context"},
		{"OnEvent=nil", "OnEvent(nil)", "expected a function"},
		{"OnListen=nil", "OnListen(nil)", "expected a function"},
		{"Handle=main,nil", `Handle("main", nil)`, "expected a handler"},
		{"Handle=admin", `Handle("admin")`, `expected one of ["main"]`},
		{"NoMove=admin", `NoMove("admin")`, `expected one of ["main"]`},
		{"OnAdopt=main,nil", `OnAdopt("main", nil)`, "expected a function"},
		{"OnAdopt=admin", `OnAdopt("admin")`, `expected one of ["main"]`},
		{"TLS=,key.pem", `TLS("", "key.pem")`, "expected a file with the certificate"},
		{"TLS=cert.pem,key.pem,admin", `TLS("cert.pem", "key.pem", "admin")`, `expected one of ["main"]`},
		{"TLS=cert.pem,key.pem,main,main", `listener "main"`, "expected one option for a listener"},
		{"TLSConfig=nil", "TLSConfig(nil)", "expected a config"},
		{"TLSConfig=empty", "TLSConfig(config)", "expected a config with Certificates"},
		{"nil", "option 3 of 3 is nil", "expected an Option"},
		{"Listen=udp,127.0.0.1:0", `network "udp"`, "expected tcp, tcp4, tcp6 or unix"},
		{"Listen=tcp,127.0.0.1", `address "127.0.0.1"`, "expected host:port"},
		{"Listen=tcp,127.0.0.1:65536", `address "127.0.0.1:65536"`, "expected a port from 0 to 65535"},
		{"Listen=tcp6,127.0.0.1:1", `address "127.0.0.1:1"`, "expected an IPv6 address"},
		{"Listen=tcp,127.0.0.1:1,main", `name "main"`, "expected a name of its own"},
		{"Listen=tcp," + addr + ",twin", `address "` + addr + `"`, `expected an address of its own, listener "main" has it`},
		{"Listen=tcp,127.0.0.1:1,a b", `name "a b"`, "expected 1 to 255 of"},
		{"Listen=tcp,127.0.0.1:1,x,600", `listener "x": mode 0600`, "expected only with the path of a unix socket"},
		{"Listen=unix,/" + strings.Repeat("x", 107), "xxx", "expected at most 107 bytes, got 108"},
		{"Listen=unix,/x,x,,no-such-user", `owner "no-such-user"`, "expected"},
	} {
		t.Run(tt.arg, func(t *testing.T) {
			requireExit(t, s.runToEnd(nil, tt.arg), 78, "baton: invalid configuration", tt.said, tt.expected)
			requireNoRuntimeDir(t, s)
		})
	}
}

func TestAllProblemsAreReportedTogether(t *testing.T) {
	s := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: takenPort(t), Name: "main"}}})
	envFile := filepath.Join(s.dir, "app.env")
	if err := os.WriteFile(envFile, []byte("BATON_KILL_TIMEOUT=x\nNOTIFY_SOCKET=/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := s.runToEnd([]string{"BATON_DRAIN_TIMEOUT=30", "BATON_MODE=cluster", "BATON_ENV_FILE=" + envFile},
		"Workers=-1", "Logger=nil", "Listen=udp,x", "Handle=admin")
	requireExit(t, o, 78, "baton: invalid configuration:\n",
		"\nWorkers(-1): "+whole, "\nLogger(nil): ", `BATON_DRAIN_TIMEOUT="30": `+duration, `BATON_MODE="cluster": `,
		`BATON_KILL_TIMEOUT="x" in `+envFile+": "+duration, "NOTIFY_SOCKET: names that begin with NOTIFY_SOCKET are reserved",
		`network "udp"`, `Handle("admin")`)
	requireNoRuntimeDir(t, s)
	// The variable is right, but for the code, which is told of all the same.
	o = s.runToEnd([]string{"BATON_WORKERS=2"}, "Workers=-1")
	requireExit(t, o, 78, "Workers(-1)")
}

func TestPortInUseIsAClearError(t *testing.T) {
	addr := takenPort(t)
	s := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: addr, Name: "main"}}})
	requireExit(t, s.runToEnd(nil), 1, `listener "main"`, addr, "address already in use")
	requireNoRuntimeDir(t, s)
	requireExit(t, s.runToEnd([]string{"BATON_MODE=single"}), 1, `listener "main"`, addr, "address already in use")

	// What was bound before the one that fails is given back.
	socket := filepath.Join(s.dir, "a.sock")
	other := deployed(t, appConfig{}, withArgs("Listen=unix,"+socket+",first", "Listen=tcp,"+addr+",second"))
	requireExit(t, other.runToEnd(nil), 1, `listener "second"`, addr, "address already in use")
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket of the first listener is left")
	}
}

func TestSecondInstanceNamesTheFirstAndLeavesItAlone(t *testing.T) {
	first := newService(t, appConfig{Version: "v1", Workers: 2})
	before := first.status()
	run := filepath.Join(first.dir, "run")
	second := deployed(t, appConfig{Listeners: []config.Listener{{Network: "tcp", Addr: first.addr, Name: "main"}}})
	requireExit(t, second.runToEnd([]string{"BATON_RUNTIME_DIR=" + run}), 75,
		"baton: already running", fmt.Sprintf("held by pid %d", before.Master.PID))
	// Elsewhere it gets as far as the port.
	requireExit(t, second.runToEnd(nil), 1, first.addr, "address already in use")

	if v := first.reload(); !v.OK {
		t.Errorf("reload of the first: %+v", v)
	}
	if v := first.upgrade(); !v.OK {
		t.Errorf("upgrade of the first: %+v", v)
	}
	// The lock went over to the new master, and names it.
	requireExit(t, second.runToEnd([]string{"BATON_RUNTIME_DIR=" + run}), 75,
		fmt.Sprintf("held by pid %d", first.masterPID()))
	if a := first.get("/version"); a.body != "v1" {
		t.Errorf("the first answers %+v", a)
	}
	st := first.waitStatus("the first is as before", func(st control.Status) bool { return len(st.Generations) == 1 && complete(st) })
	checkLedger(t, st)
}

func TestOverridesAreLoggedAndCount(t *testing.T) {
	s := newService(t, appConfig{Workers: 2}, withEnv("BATON_WORKERS=8", "BATON_DRAIN_TIMEOUT=7s", "BATON_COLOUR=blue"))
	s.waitLog("workers=8 from BATON_WORKERS, code says 2")
	s.waitLog("drain_timeout=7s from BATON_DRAIN_TIMEOUT, default 30s")
	if n := s.countLog("BATON_COLOUR"); n > 0 {
		t.Errorf("%d lines about a variable that means nothing", n)
	}
	if n := s.countLog("workers=8 from"); n != 1 {
		t.Errorf("%d lines: the workers say it too", n)
	}
	if n := len(s.workers()); n != 8 {
		t.Errorf("%d workers", n)
	}
}

// boundAddr returns where the only process of a single mode listens.
func boundAddr(s *service, listener string) string {
	s.t.Helper()
	line := s.waitLog("listening listener=" + listener + " address=")
	_, addr, _ := strings.Cut(line, " address=")
	return dialable(control.Listener{Network: "tcp", Address: strings.Trim(addr, `"`)})
}

func TestSingleModeServesInOneProcessAndDrains(t *testing.T) {
	s := deployed(t, appConfig{Version: "v1", Workers: 3, Listeners: []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}},
		withEnv("BATON_MODE=single"))
	s.launch()
	s.addr = boundAddr(s, "main")
	s.waitLog("mode=single from BATON_MODE, default master")
	if a := s.get("/version"); a.body != "v1" || a.worker != "1.1" {
		t.Errorf("it answers %+v", a)
	}
	if ps := s.processes(); len(ps) != 1 {
		t.Errorf("processes:\n%s", table(ps))
	}
	slow, err := dialService(s.addr)
	if err == nil {
		err = slow.send("/slow?d=" + tier("1s", "2s"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.get("/") // of a later connection: the slow one has been accepted
	signalPID(t, s.session, syscall.SIGTERM)
	s.waitLog("stopping")
	if a, err := slow.answer(waitTime); err != nil || a.status != 200 {
		t.Errorf("the request under way: %+v, %v", a, err)
	}
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitLog("drained cut=0")
	if starts, _ := os.ReadFile(filepath.Join(s.dir, "starts")); bytes.Count(starts, []byte("\n")) != 1 {
		t.Errorf("processes that were started:\n%s", starts)
	}
	requireNoRuntimeDir(t, s)
}

func TestUnixListenerHasItsModeThroughDeploysAndGoesAtTheEnd(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o666} { // less and more than a umask leaves
		t.Run(fmt.Sprintf("%04o", mode), func(t *testing.T) {
			s := deployed(t, appConfig{Version: "v1", Workers: 2})
			socket := filepath.Join(s.dir, "app.sock")
			s.args = append(s.args, fmt.Sprintf("Listen=unix,%s,main,%o", socket, mode))
			s.launch()
			s.waitServing()
			inode := func() uint64 {
				t.Helper()
				info, err := os.Lstat(socket)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != os.ModeSocket|mode {
					t.Errorf("mode %v, want %v", info.Mode(), os.ModeSocket|mode)
				}
				return info.Sys().(*syscall.Stat_t).Ino
			}
			first := inode()
			for _, deploy := range []func() control.Verdict{s.reload, s.upgrade, s.reload} {
				if v := deploy(); !v.OK {
					t.Fatalf("%+v", v)
				}
				if a := s.get("/version"); s.addr != socket || a.body != "v1" {
					t.Errorf("%s answers %+v", s.addr, a)
				}
				if now := inode(); now != first {
					t.Errorf("another file, inode %d, was %d", now, first)
				}
			}
			s.stop()
			if code := s.exitCode(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if _, err := os.Lstat(socket); err == nil {
				t.Error("the socket is left")
			}
		})
	}
}

func TestPortOfTheEnvironmentIsServed(t *testing.T) {
	port := freePort(t)
	s := deployed(t, appConfig{Version: "v1", Workers: 1}, withEnv("PORT="+strconv.Itoa(port)))
	s.launch()
	s.waitServing()
	if want := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)); s.addr != want {
		t.Errorf("it listens on %s, want %s", s.addr, want)
	}
	if l := s.status().Listeners; len(l) != 1 || l[0].Name != "default" {
		t.Errorf("listeners %+v", l)
	}
	if a := s.get("/version"); a.body != "v1" {
		t.Errorf("it answers %+v", a)
	}
	// A listener in the code is what was meant: PORT is not asked.
	other := newService(t, appConfig{Workers: 1}, withEnv("PORT=no port"))
	if l := other.status().Listeners; len(l) != 1 || l[0].Name != "main" {
		t.Errorf("listeners %+v", l)
	}
}
