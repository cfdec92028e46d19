//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

// A container is a PID namespace in which the service is PID 1. Its pids are
// those of the namespace; here all are as seen from outside.

// aroundMaster is how many processes a container has beside master and
// workers: unshare, which is the first of the session, and init.
const aroundMaster = 2

// inContainer makes the service PID 1 of a namespace of its own. It needs root.
func inContainer(s *service) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("a PID namespace needs root")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		s.t.Fatal(err)
	}
	s.wrapper = []string{unshare, "--pid", "--fork", "--mount-proc"}
}

// insidePID is the pid that a process has in its own namespace, if that is not
// the one of the test.
func insidePID(pid int) (int, bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, rest, _ := strings.Cut(string(status), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	pids := strings.Fields(line)
	if len(pids) < 2 {
		return 0, false
	}
	inside, err := strconv.Atoi(pids[len(pids)-1])
	return inside, err == nil
}

// outsidePIDs maps pids of the container to those of the test.
func (s *service) outsidePIDs() map[int]int {
	pids := map[int]int{}
	for _, p := range s.processes() {
		if inside, ok := insidePID(p.PID); ok {
			pids[inside] = p.PID
		}
	}
	return pids
}

// seeFromOutside puts the pids of the test in place of the container's; 0 for a
// process that has gone.
func (s *service) seeFromOutside(st *control.Status) {
	if s.wrapper == nil {
		return
	}
	pids := s.outsidePIDs()
	st.Master.PID = pids[st.Master.PID]
	for _, g := range st.Generations {
		for i := range g.Processes {
			g.Processes[i].PID = pids[g.Processes[i].PID]
		}
	}
}

// frame is the pids of what is around the master.
func (s *service) frame() []int {
	if s.wrapper == nil {
		return nil
	}
	return []int{s.session, s.outsidePIDs()[1]}
}

// initProcess waits until the binary runs as PID 1.
func (s *service) initProcess() process {
	s.t.Helper()
	var p process
	eventually(s.t, startTime, "there is a PID 1", func() bool {
		var err error
		p, err = readProcess(s.outsidePIDs()[1])
		return err == nil && strings.HasPrefix(p.exe(), s.binary)
	})
	return p
}

// signalInit signals PID 1, as docker kill does.
func (s *service) signalInit(sig syscall.Signal) {
	s.t.Helper()
	mustSignal(s.t, s.initProcess(), sig)
}

// fixedPort is the listener of a service that is found at the same place by a
// master which inherits nothing. The port is none that the kernel gives to
// clients.
func fixedPort(t *testing.T) []config.Listener {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return []config.Listener{{Network: "tcp", Addr: l.Addr().String(), Name: "main"}}
	}
	t.Fatal("no port is free")
	return nil
}

// inTerminal gives the service a terminal, as docker run -it does.
func inTerminal(s *service) {
	s.t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.terminal = f
}

// attach makes the terminal that of cmd: its files, and where signals come from.
func (s *service) attach(cmd *exec.Cmd) {
	s.t.Helper()
	number, err := unix.IoctlGetInt(int(s.terminal.Fd()), unix.TIOCGPTN)
	if err != nil {
		s.t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { theirs.Close() })
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr.Setctty = true // of stdin
	go s.log.read(s.terminal)
}
