//go:build linux

package integration

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// launchAs is launch for a service with another name or another stderr.
func launchAs(s *service, argv0 string, stderr *os.File) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command(s.binary, s.args...)
	cmd.Args[0] = argv0
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.Stdout, cmd.Stderr = w, cmp.Or(stderr, w)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		r.Close()
		s.t.Fatal(err)
	}
	s.session, s.master = cmd.Process.Pid, cmd.Process.Pid
	reaper.add(s.session)
	go s.log.read(r)
	go func() {
		defer close(s.exited)
		_ = cmd.Wait()
		reaper.record(cmd.Process.Pid, cmd.ProcessState.Sys().(syscall.WaitStatus))
	}()
}

// rawPipe is a pipe in blocking mode, as a service gets it from a shell.
func rawPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(p[0]), "read end"), os.NewFile(uintptr(p[1]), "write end")
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// fill leaves no room in a pipe.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	fd := int(w.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for {
			if _, err := unix.Write(fd, make([]byte, size)); errors.Is(err, unix.EAGAIN) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
}

// newServiceWithStderr starts a service whose stderr is w, which is closed here.
func newServiceWithStderr(t *testing.T, w *os.File) *service {
	t.Helper()
	s := deployed(t, appConfig{Version: "v1", Workers: 2,
		Listeners: []config.Listener{{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}}})
	launchAs(s, s.binary, w)
	w.Close()
	s.waitServing()
	return s
}

// deployTalkers deploys releases that write more than a pipe holds before they
// are ready, by both ways, and requires that each is taken in good time.
func deployTalkers(s *service) {
	s.t.Helper()
	for i, deploy := range []func() control.Verdict{s.reload, s.upgrade, s.reload, s.upgrade} {
		cfg := s.cfg
		cfg.Version, cfg.Quirk = fmt.Sprintf("talks-%d", i), config.QuirkTalks
		s.install(cfg)
		began := time.Now()
		if v := deploy(); !v.OK {
			s.t.Fatalf("deploy of %s: %+v", cfg.Version, v)
		}
		if took := time.Since(began); took > 10*time.Second {
			s.t.Errorf("the deploy of %s took %v", cfg.Version, took)
		}
		requireCoherent(s, cfg.Version, 2)
	}
}

// A log shipper that dies takes no service with it.
func TestServiceGoesOnWhenNobodyHasTheOtherEndOfItsStderr(t *testing.T) {
	r, w := rawPipe(t)
	s := newServiceWithStderr(t, w)
	r.Close()
	finish := s.start(lightLoad())
	first := s.masterPID()
	installVersion(s, "v2")
	s.signal(syscall.SIGHUP)
	if st := requireCoherent(s, "v2", 2); st.Master.PID != first {
		t.Errorf("master %d, was %d", st.Master.PID, first)
	}
	requireNothingLost(s, finish())
	killOne(s)
	requireCoherent(s, "v2", 2)
	installVersion(s, "v3")
	s.signal(syscall.SIGUSR2)
	if st := requireCoherent(s, "v3", 2); st.Master.Upgrades != 1 {
		t.Errorf("%d upgrades", st.Master.Upgrades)
	}
	killOne(s)
	requireCoherent(s, "v3", 2)
	deployTalkers(s)
	requireStops(s)
}

// The same when it hangs: what does not fit is dropped, and nobody waits.
func TestServiceGoesOnWhenNobodyReadsItsStderr(t *testing.T) {
	t.Parallel() // it waits more than it works
	_, w := rawPipe(t)
	fill(t, w)
	s := newServiceWithStderr(t, w)
	finish := s.start(lightLoad())
	deployTalkers(s)
	requireNothingLost(s, finish())
	cfg := s.cfg
	cfg.Version, cfg.Fail, cfg.Quirk = "bad", config.FailBuild, config.QuirkTalks
	s.install(cfg)
	for name, deploy := range map[string]func() control.Verdict{"reload": s.reload, "upgrade": s.upgrade} {
		if v := deploy(); v.OK || !strings.Contains(v.Reason, "build fails as told") || !strings.Contains(v.Stderr, "talk ") {
			t.Errorf("%s of a bad release: %+v", name, v)
		}
	}
	killOne(s) // talks-3 talks again
	s.waitStatus("it is replaced", complete)
	began := time.Now()
	requireStops(s)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// startEchoes has clients ask an echo service "who", a connection each time,
// until the returned function is called, which says how often and what failed.
func startEchoes(s *service, clients int) (finish func() (int, []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var all sync.WaitGroup
	var errs []error
	n := 0
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				err := who(s.addr)
				mu.Lock()
				n++
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
			}
		})
	}
	finish = func() (int, []error) { cancel(); all.Wait(); return n, errs }
	s.t.Cleanup(func() { finish() })
	return finish
}

func who(addr string) error {
	c, err := net.DialTimeout("tcp", addr, waitTime)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(waitTime))
	if _, err := c.Write([]byte("who\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && strings.Count(line, " ") != 2 {
		err = fmt.Errorf("answer %q", line)
	}
	return err
}
