//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// process is a line of ps.
type process struct {
	PID, PPID, Group, Session int
	State                     string // R, S, D, T (stopped), Z (zombie)
	Comm                      string
	Start                     uint64 // in ticks since boot: with the pid it names a process for ever
	Args                      string
}

// readProcess reads /proc/PID.
func readProcess(pid int) (process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, err
	}
	from, to := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return process{}, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	f := strings.Fields(string(stat[to+1:]))
	if len(f) < 20 {
		return process{}, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	p := process{PID: pid, State: f[0], Comm: string(stat[from+1 : to])}
	p.PPID, _ = strconv.Atoi(f[1])
	p.Group, _ = strconv.Atoi(f[2])
	p.Session, _ = strconv.Atoi(f[3])
	p.Start, _ = strconv.ParseUint(f[19], 10, 64)
	args, _ := os.ReadFile(dir + "/cmdline")
	p.Args = strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
	return p, nil
}

// exe is what the process runs, "" for a zombie.
func (p process) exe() string {
	path, _ := os.Readlink("/proc/" + strconv.Itoa(p.PID) + "/exe")
	return path
}

// signal sends sig to this very process, not to one that got its pid since.
func (p process) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, err := readProcess(p.PID); err != nil || now.Start != p.Start {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

func (p process) kill() error { return p.signal(syscall.SIGKILL) }

// findProcesses returns the processes for which f is true, by pid.
func findProcesses(f func(process) bool) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil && f(p) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b process) int { return a.PID - b.PID })
	return found
}

// table prints processes as ps does.
func table(ps []process) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tPPID\tPGID\tSID\tSTATE\tCOMM\tARGS")
	for _, p := range ps {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\t%s\n", p.PID, p.PPID, p.Group, p.Session, p.State, p.Comm, p.Args)
	}
	w.Flush()
	return b.String()
}

// signalPID signals a process of a service. A SIGSTOP has stopped it when
// signalPID returns: the signal alone leaves threads that run some time.
func signalPID(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	p, err := readProcess(pid)
	if err == nil && !reaper.knows(p.Session) {
		err = fmt.Errorf("it is no process of a service: %+v", p)
	}
	if err == nil {
		err = p.signal(sig)
	}
	if err != nil {
		t.Fatalf("%v to process %d: %v", sig, pid, err)
	}
	if sig == syscall.SIGSTOP {
		waitStopped(t, p)
	}
}

// waitStopped waits until p is stopped, or gone.
func waitStopped(t *testing.T, p process) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("process %d is stopped", p.PID), func() bool {
		now, err := readProcess(p.PID)
		return err != nil || now.Start != p.Start || now.State == "T" || now.State == "Z"
	})
}

// reaper collects the processes that became ours when their parent went: those
// in the session of a service. The first process of a session is os/exec's.
var reaper = &reaping{sessions: map[int]bool{}, statuses: map[int]syscall.WaitStatus{}, changed: make(chan struct{})}

type reaping struct {
	mu       sync.Mutex
	sessions map[int]bool
	statuses map[int]syscall.WaitStatus // by pid
	changed  chan struct{}              // closed and renewed at each change
}

// add is called before anybody waits for the first process of session.
func (r *reaping) add(session int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[session] = true
	delete(r.statuses, session) // of another process that had the pid
}

func (r *reaping) knows(session int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[session]
}

func (r *reaping) run() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	for range died {
		zombies := findProcesses(func(p process) bool {
			return p.State == "Z" && p.PPID == os.Getpid() && p.PID != p.Session && r.knows(p.Session)
		})
		for _, p := range zombies {
			var ws syscall.WaitStatus
			if pid, err := syscall.Wait4(p.PID, &ws, syscall.WNOHANG, nil); err == nil && pid == p.PID {
				r.record(pid, ws)
			}
		}
	}
}

func (r *reaping) record(pid int, ws syscall.WaitStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statuses[pid] = ws
	close(r.changed)
	r.changed = make(chan struct{})
}

var errStillRuns = errors.New("it has not ended")

// status waits for a process that was or became our child.
func (r *reaping) status(pid int, bound time.Duration) (syscall.WaitStatus, error) {
	timeout := time.After(bound)
	for {
		r.mu.Lock()
		ws, ok := r.statuses[pid]
		changed := r.changed
		r.mu.Unlock()
		if ok {
			return ws, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return 0, errStillRuns
		}
	}
}

// eventually polls what tells of no event: /proc, a socket that is not there
// yet, a snapshot. f is asked until it is true, at most for bound.
func eventually(t *testing.T, bound time.Duration, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, bound)
		}
	}
}
