package upgrade

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The init of these tests is no PID 1, but a subreaper: strangers become its
// children all the same.

// masterEnv is how the masters of a container behave.
const masterEnv = "UPGRADE_TEST_MASTER"

func init() {
	tasks["init"] = initTask
	tasks["master"] = masterTask
}

func initTask() int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		return 100
	}
	os.Setenv(taskEnv, "master")
	status, err := RunInit(InitOptions{
		Argv: os.Args, Dir: "/", Binary: os.Executable, StopTimeout: time.Second,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Println(err)
		return 101
	}
	return status
}

// masterTask says what it does on stdout, in lines that begin with its pid.
func masterTask() int {
	tell := func(what string, args ...any) { fmt.Println(os.Getpid(), fmt.Sprintf(what, args...)) }
	do, arg, _ := strings.Cut(os.Getenv(masterEnv), " ")
	if do == "exits" {
		n, _ := strconv.Atoi(arg)
		return n
	}
	u, err := New(Options{Timeout: patience, CancelTimeout: time.Second})
	if err != nil {
		tell("%v", err)
		return 102
	}
	if u.Init() == nil {
		tell("no init")
		return 103
	}
	if p := u.Predecessor(); p != nil {
		_, err := p.Offer()
		if err == nil {
			_, err = p.Prepared()
		}
		if err != nil {
			tell("%v", err)
			return 107
		}
		if err := p.Accept(); err != nil {
			return 108
		}
		switch arg {
		case "late":
			time.Sleep(300 * time.Millisecond) // the old one has exited
		case "dies":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	} else if err := u.Ready(); err != nil {
		return 109
	}
	switch do {
	case "looks":
		dev, _ := os.Stat("/dev/null")
		kept, err := os.NewFile(3, "").Stat()
		tell("marker %q, kept %v", os.Getenv(initEnv), err == nil && os.SameFile(dev, kept))
		group, _ := syscall.Getpgid(0)
		tell("own group %v", group == os.Getpid())
		return 0
	case "deaf":
		tell("is deaf")
		select {}
	case "gate":
		tell("waits")
		f, err := os.Open(arg)
		if err != nil {
			return 104
		}
		_, _ = io.ReadAll(f)
		f.Close()
	case "orphans":
		out, err := exec.Command("sh", "-c", "sleep 0.3 >/dev/null & echo $!").Output()
		if err != nil {
			return 105
		}
		tell("stranger %s", strings.TrimSpace(string(out)))
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM,
		syscall.SIGINT, syscall.SIGTTIN, syscall.SIGTTOU)
	u.Init().Tell(NoticeHello)
	u.Init().Tell(NoticeServes)
	tell("serves")
	for sig := range signals {
		tell("got %v", sig)
		if sig == syscall.SIGTERM {
			u.Init().Tell(NoticeStopping)
			u.Init().Adopted()
			return 0
		}
		if sig == syscall.SIGUSR2 && do == "upgrades" {
			next, err := u.Upgrade(context.Background(), Handover{Freeze: func() ([]Entry, error) { return nil, nil }})
			if err != nil {
				tell("%v", err)
				return 110
			}
			u.Init().Tell(NoticeReplaced)
			for len(signals) > 0 {
				_ = next.Signal(<-signals)
			}
			if arg == "lingers" {
				time.Sleep(500 * time.Millisecond)
			}
			return 0
		}
	}
	return 0
}

// container is an init and its masters.
type container struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func startContainer(t *testing.T, do string, extra ...*os.File) *container {
	t.Helper()
	c := &container{t: t, cmd: exec.Command(os.Args[0]), lines: make(chan string, 64)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Env = append(os.Environ(), taskEnv+"=init", masterEnv+"="+do, "GORACE=atexit_sleep_ms=0")
	c.cmd.Stdout, c.cmd.Stderr = w, os.Stderr
	if !testing.Verbose() {
		c.cmd.Stderr = nil
	}
	c.cmd.ExtraFiles = extra
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	go func() {
		defer close(c.lines)
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		// Its masters are not in its namespace, so its end is not theirs.
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Signal(syscall.SIGTERM)
			_ = c.cmd.Process.Signal(syscall.SIGINT)
			_ = c.cmd.Wait()
		}
		for range c.lines {
		}
	})
	return c
}

// says waits for the next line and returns the pid that it begins with.
func (c *container) says(want string) (pid int) {
	c.t.Helper()
	select {
	case line := <-c.lines:
		who, what, _ := strings.Cut(line, " ")
		pid, err := strconv.Atoi(who)
		if err != nil || want != "" && what != want {
			c.t.Fatalf("it says %q, want %q", line, want)
		}
		return pid
	case <-time.After(2 * patience):
		c.t.Fatalf("it does not say %q", want)
	}
	panic("unreachable")
}

func (c *container) signal(sig os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// ends waits for the end of init and requires its exit status.
func (c *container) ends(status int) {
	c.t.Helper()
	timer := time.AfterFunc(2*patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if have := c.cmd.ProcessState.ExitCode(); have != status {
		c.t.Errorf("exit status %d, want %d", have, status)
	}
}

func TestInitStartsAnotherMasterWhenOneIsKilled(t *testing.T) {
	c := startContainer(t, "serves")
	first := c.says("serves")
	for range 2 {
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		second := c.says("serves")
		if second == first {
			t.Fatal("the dead one serves")
		}
		first = second
	}
	c.signal(syscall.SIGTERM)
	c.says("got terminated")
	c.ends(0)
}

func TestInitEndsWithTheStatusOfItsMaster(t *testing.T) {
	for _, status := range []int{0, 1, 7, 75, 78} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			startContainer(t, fmt.Sprintf("exits %d", status)).ends(status)
		})
	}
	// What has never served is tried a few times.
	t.Run("2", func(t *testing.T) { startContainer(t, "exits 2").ends(2) })
	t.Run("killed while it stops", func(t *testing.T) {
		c := startContainer(t, "serves")
		pid := c.says("serves")
		c.signal(syscall.SIGINT)
		c.says("got interrupt")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.ends(128 + 9)
	})
	t.Run("QUIT", func(t *testing.T) {
		c := startContainer(t, "serves")
		c.says("serves")
		c.signal(syscall.SIGQUIT)
		c.ends(2)
	})
}

func TestSignalsWaitForAMasterThatHearsThem(t *testing.T) {
	for name, sent := range map[string][]syscall.Signal{
		"deploys": {syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU},
		"stop":    {syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			gate := t.TempDir() + "/gate"
			if err := unix.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			c := startContainer(t, "gate "+gate)
			c.says("waits")
			for _, sig := range sent {
				c.signal(sig)
			}
			waitTaken(t, c.cmd.Process.Pid)
			f, err := os.OpenFile(gate, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			c.says("serves")
			want := map[string]bool{}
			for _, sig := range sent {
				want["got "+sig.String()] = true
			}
			for range sent { // in any order, which the kernel does not keep either
				line := <-c.lines
				_, what, _ := strings.Cut(line, " ")
				if !want[what] {
					t.Errorf("it says %q", line)
				}
				delete(want, what)
			}
			if name != "stop" {
				c.signal(syscall.SIGTERM)
				c.says("got terminated")
			}
			c.ends(0)
		})
	}
}

// waitTaken waits until no signal is pending.
func waitTaken(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(status), "ShdPnd:\t0000000000000000") {
			return
		}
	}
	t.Fatal("the signal is not taken")
}

func TestAMasterThatNeverHearsCanBeStopped(t *testing.T) {
	c := startContainer(t, "deaf")
	c.says("is deaf")
	c.signal(syscall.SIGTERM)
	waitTaken(t, c.cmd.Process.Pid)
	c.signal(syscall.SIGTERM)
	c.ends(128 + 15)
}

func TestInitFollowsTheMasterThroughUpgrades(t *testing.T) {
	for _, how := range []string{"", "late", "lingers"} {
		t.Run(how, func(t *testing.T) {
			c := startContainer(t, "upgrades "+how)
			pid := c.says("serves")
			for range 2 {
				c.signal(syscall.SIGUSR2)
				c.says("got " + syscall.SIGUSR2.String())
				next := c.says("serves")
				if next == pid {
					t.Fatal("it is the same")
				}
				c.signal(syscall.SIGHUP)
				if got := c.says("got " + syscall.SIGHUP.String()); got != next {
					t.Errorf("master %d got it, %d is the new one", got, next)
				}
				pid = next
			}
			c.signal(syscall.SIGTERM)
			if got := c.says("got terminated"); got != pid {
				t.Errorf("master %d got it, the last one is %d", got, pid)
			}
			c.ends(0)
		})
	}
}

// When it wakes up, all has happened at once.
func TestInitThatWasSuspendedFollowsTheMaster(t *testing.T) {
	c := startContainer(t, "upgrades late")
	pid := c.says("serves")
	for range 8 {
		c.signal(syscall.SIGUSR2)
		c.says("got " + syscall.SIGUSR2.String())
		c.signal(syscall.SIGSTOP)
		next := c.says("serves")
		for end := time.Now().Add(patience); !isZombie(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the old master does not end")
			}
		}
		c.signal(syscall.SIGCONT)
		c.signal(syscall.SIGHUP)
		if got := c.says("got " + syscall.SIGHUP.String()); got != next {
			t.Fatalf("master %d got it, %d is the new one", got, next)
		}
		pid = next
	}
	c.signal(syscall.SIGTERM)
	c.says("got terminated")
	c.ends(0)
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestInitStartsAnotherMasterWhenTheNewOneDiesBeforeItIsKnown(t *testing.T) {
	c := startContainer(t, "upgrades dies")
	for range 2 {
		pid := c.says("serves")
		c.signal(syscall.SIGUSR2)
		if got := c.says("got " + syscall.SIGUSR2.String()); got != pid {
			t.Errorf("master %d got it, it is %d", got, pid)
		}
	}
	c.says("serves")
	c.signal(syscall.SIGTERM)
	c.says("got terminated")
	c.ends(0)
}

func TestInitCollectsStrangers(t *testing.T) {
	c := startContainer(t, "orphans")
	var stranger int
	select {
	case line := <-c.lines:
		if _, err := fmt.Sscanf(line, "%d stranger %d", new(int), &stranger); err != nil {
			t.Fatalf("it says %q", line)
		}
	case <-time.After(2 * patience):
		t.Fatal("no stranger")
	}
	c.says("serves")
	for end := time.Now().Add(patience); syscall.Kill(stranger, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not collected")
		}
	}
	c.signal(syscall.SIGTERM)
	c.says("got terminated")
	c.ends(0)
}

func TestAMasterInheritsWhatInitHasInherited(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c := startContainer(t, "looks", null)
	c.says(`marker "", kept true`)
	c.says("own group true")
	c.ends(0)
}

// Whoever made the socket is not the parent of this process.
func TestAMarkerAloneMakesNobodyAMasterOfInit(t *testing.T) {
	for _, fd := range []string{"", "x", "1", "99", "3"} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(pair[1]), "")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), taskEnv+"=master", masterEnv+"=serves", initEnv+"="+fd, "GORACE=atexit_sleep_ms=0")
		cmd.ExtraFiles = []*os.File{theirs}
		out, err := cmd.Output()
		unix.Close(pair[0])
		theirs.Close()
		if !strings.Contains(string(out), "no init") {
			t.Errorf("%s=%q: it says %q, %v", initEnv, fd, out, err)
		}
	}
}
