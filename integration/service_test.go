//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

type (
	appConfig  = config.Config
	appOptions = config.Options
)

// service is a running test application.
type service struct {
	t      *testing.T
	cfg    appConfig // as started
	app    string    // what is started: testapp, or an example
	dir    string    // of the binary (dir/app) and the runtime directory (dir/run)
	binary string
	addr   string // of the first listener, ready to be dialled
	client *control.Client

	log     *logBuffer
	session int           // of the last start; the pid of its first process
	before  []int         // those of earlier starts
	exited  chan struct{} // the first process of the last start has

	mu      sync.Mutex
	master  int            // the last one that was seen
	last    control.Status // ditto
	env     []string
	args    []string
	journal bool // its stdout and stderr are a socket, as systemd's are
	files   int  // RLIMIT_NOFILE of the service; 0: the test's

	wrapper    []string            // what starts the binary; see inContainer
	credential *syscall.Credential // of another user; nil: ours; see unprivileged
	terminal   *os.File            // our end of the service's, nil if it has none; see inTerminal
}

type serviceOption func(*service)

// withEnv adds variables to the environment, which is otherwise nearly empty.
func withEnv(env ...string) serviceOption {
	return func(s *service) { s.env = append(s.env, env...) }
}

// withArgs gives the service arguments.
func withArgs(args ...string) serviceOption {
	return func(s *service) { s.args = append(s.args, args...) }
}

// withFiles gives the service another limit of descriptors, which nothing in it
// can raise.
func withFiles(n int) serviceOption {
	return func(s *service) { s.files = n }
}

// limited makes cmd start with as many descriptors as s may have.
func (s *service) limited(cmd *exec.Cmd) *exec.Cmd {
	if s.files > 0 {
		script := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, s.files)
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", script}, cmd.Args...)
	}
	return cmd
}

// withApp starts another program than the test application. Its behaviour is its
// own, and appConfig of no effect.
func withApp(path string) serviceOption {
	return func(s *service) { s.app = path }
}

// startTime bounds the start of a service; two slow cores build nothing here,
// but -race and other tests take their part.
const startTime = 20 * time.Second

// newService starts a service and waits until it serves.
func newService(t *testing.T, cfg appConfig, opts ...serviceOption) *service {
	t.Helper()
	s := startService(t, cfg, opts...)
	s.waitServing()
	return s
}

// startService starts a service and does not wait for it.
func startService(t *testing.T, cfg appConfig, opts ...serviceOption) *service {
	t.Helper()
	dir, err := os.MkdirTemp(rootDir, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Listeners) == 0 {
		cfg.Listeners = []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}
	}
	s := &service{
		t: t, cfg: cfg, app: testapp, dir: dir, binary: filepath.Join(dir, "app"),
		client: control.NewClient(filepath.Join(dir, "run", "control.sock")),
		log:    newLogBuffer(), exited: make(chan struct{}),
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir,
			"BATON_RUNTIME_DIR=" + filepath.Join(dir, "run"),
			// The race detector holds up every exit by a second otherwise.
			"GORACE=atexit_sleep_ms=0",
		},
	}
	for _, o := range opts {
		o(s)
	}
	s.install(cfg)
	s.launch()
	t.Cleanup(s.end)
	return s
}

// launch starts the first process.
func (s *service) launch() {
	s.t.Helper()
	r, w, err := os.Pipe()
	if s.journal {
		r, w, err = socketPair()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	argv := slices.Concat(s.wrapper, []string{s.binary}, s.args)
	cmd := s.limited(exec.Command(argv[0], argv[1:]...))
	cmd.Dir, cmd.Env = s.dir, s.env
	// Files, not writers: Wait must not wait for the workers to close them.
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.credential}
	if s.terminal != nil {
		s.attach(cmd)
	}
	if err := cmd.Start(); err != nil {
		r.Close()
		s.t.Fatal(err)
	}
	if s.session != 0 {
		s.before = append(s.before, s.session)
		s.exited = make(chan struct{})
	}
	s.session = cmd.Process.Pid
	s.mu.Lock()
	s.master = cmd.Process.Pid
	s.mu.Unlock()
	reaper.add(s.session)
	go s.log.read(r)
	exited := s.exited
	go func() {
		defer close(exited)
		_ = cmd.Wait()
		reaper.record(cmd.Process.Pid, cmd.ProcessState.Sys().(syscall.WaitStatus))
	}()
}

// waitServing waits until the service serves, and learns its addresses.
func (s *service) waitServing() {
	s.t.Helper()
	eventually(s.t, startTime, "the service serves", func() bool {
		select {
		case <-s.exited:
			s.t.Fatalf("the service has exited before it served")
		default:
		}
		st, err := s.tryStatus()
		return err == nil && st.State == control.StateServing
	})
	s.addr = dialable(s.last.Listeners[0])
}

// addrOf returns the address of the listener of that name.
func (s *service) addrOf(name string) string {
	s.t.Helper()
	for _, l := range s.status().Listeners {
		if l.Name == name {
			return dialable(l)
		}
	}
	s.t.Fatalf("no listener is called %q", name)
	return ""
}

// dialable is a literal address for one that listens on all.
func dialable(l control.Listener) string {
	if l.Network == "unix" {
		return l.Address
	}
	host, port, err := net.SplitHostPort(l.Address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return l.Address
}

// install puts a release in the place of the binary, as a deployment does: it
// is written beside it and moved. Without listeners it has those of the start.
func (s *service) install(cfg appConfig) {
	s.t.Helper()
	if len(cfg.Listeners) == 0 {
		cfg.Listeners = s.cfg.Listeners
	}
	if err := s.replace(s.app, 0o755, func(w io.Writer) error { return config.Append(w, cfg) }); err != nil {
		s.t.Fatal(err)
	}
}

// installFile puts a copy of any file there, with any mode.
func (s *service) installFile(path string, mode os.FileMode) {
	s.t.Helper()
	if err := s.replace(path, mode, func(io.Writer) error { return nil }); err != nil {
		s.t.Fatal(err)
	}
}

// uninstall leaves no binary.
func (s *service) uninstall() {
	s.t.Helper()
	if err := os.Remove(s.binary); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) replace(from string, mode os.FileMode, finish func(io.Writer) error) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	// A child forked meanwhile would hold the file open for writing until it
	// execs, and the service could not start it: text file busy.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	next := s.binary + ".next"
	dst, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = finish(dst)
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(next, s.binary)
	}
	if err != nil {
		_ = os.Remove(next)
	}
	return err
}

// processes returns all processes of the service, zombies included.
func (s *service) processes() []process {
	return findProcesses(s.owns)
}

// owns says whether p is a process of the service.
func (s *service) owns(p process) bool {
	return p.Session == s.session || slices.Contains(s.before, p.Session)
}

// waitProcesses waits until the service has n processes. Zombies count, so that
// one which nobody collects is seen; those of the test itself go in no time.
func (s *service) waitProcesses(n int) {
	s.t.Helper()
	var ps []process
	if n > 0 && s.wrapper != nil {
		n += aroundMaster
	}
	for deadline := time.Now().Add(waitTime); ; time.Sleep(5 * time.Millisecond) {
		if ps = s.processes(); len(ps) == n {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d processes after %v, want %d:\n%s", len(ps), waitTime, n, table(ps))
		}
	}
}

// signal signals the current master.
func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	signalPID(s.t, s.masterPID(), sig)
}

// exitTime is StopTimeout and KillTimeout, and some.
const exitTime = 35 * time.Second

// exitCode waits until no process of the service is left and returns the exit
// status of the last master, or of the container; -1 if a signal ended it.
func (s *service) exitCode() int {
	s.t.Helper()
	eventually(s.t, exitTime, "the service ends", func() bool { return len(s.processes()) == 0 })
	s.mu.Lock()
	master := s.master
	if s.wrapper != nil {
		master = s.session
	}
	s.mu.Unlock()
	ws, err := reaper.status(master, 5*time.Second)
	if err != nil {
		s.t.Fatalf("exit status of the master %d: %v", master, err)
	}
	if !ws.Exited() {
		return -1
	}
	return ws.ExitStatus()
}

// endTime is KillTimeout by default, and some.
const endTime = 10 * time.Second

// end stops the service, whatever state the test left it in.
func (s *service) end() {
	failed := s.t.Failed()
	if failed {
		s.t.Log(s.describe())
	}
	if len(s.processes()) > 0 {
		s.endGently()
	}
	if left := s.processes(); len(left) > 0 {
		if !s.t.Failed() {
			s.t.Errorf("the service did not end within %v\n%s", endTime, s.describe())
		}
		for _, p := range left {
			_ = p.kill()
		}
	}
	if left := s.wait(5 * time.Second); len(left) > 0 {
		s.t.Errorf("processes are left:\n%s", table(left))
	}
	if race := s.log.find("WARNING: DATA RACE"); race >= 0 {
		lines := s.log.all()[race:]
		s.t.Errorf("data race in the service:\n%s", strings.Join(lines[:min(len(lines), 60)], "\n"))
	}
	if !failed && s.t.Failed() {
		s.t.Log(s.describe())
	}
	_ = os.RemoveAll(s.dir)
}

// endGently sends TERM, then asks for a stop at once.
func (s *service) endGently() {
	ctx, cancel := deadline(endTime)
	defer cancel()
	if st, err := s.tryStatus(); err == nil {
		if p, err := readProcess(st.Master.PID); err == nil && s.owns(p) {
			_ = p.signal(syscall.SIGTERM)
		}
		_, _ = s.client.Stop(ctx, control.StopRequest{Now: true})
	} else if p, err := readProcess(s.master); err == nil && s.owns(p) {
		_ = p.signal(syscall.SIGTERM)
	} else {
		return // no master that could be asked
	}
	s.wait(endTime)
}

// wait waits until all processes have ended, and returns those that have not.
func (s *service) wait(bound time.Duration) []process {
	for deadline := time.Now().Add(bound); ; time.Sleep(5 * time.Millisecond) {
		left := s.processes()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// describe is what one wants to know of a service when a test has failed.
func (s *service) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "processes of the service in %s, session %d:\n%s", s.dir, s.session, table(s.processes()))
	ctx, cancel := deadline(2 * time.Second)
	defer cancel()
	if raw, err := s.client.StatusJSON(ctx); err == nil {
		fmt.Fprintf(&b, "status:\n%s\n", raw)
	} else {
		s.mu.Lock()
		raw, _ := json.Marshal(s.last)
		s.mu.Unlock()
		fmt.Fprintf(&b, "no status (%v); the last one:\n%s\n", err, raw)
	}
	lines := s.log.all()
	fmt.Fprintf(&b, "the last of %d log lines:\n", len(lines))
	for _, l := range lines[max(0, len(lines)-40):] {
		b.WriteString(l + "\n")
	}
	return b.String()
}
