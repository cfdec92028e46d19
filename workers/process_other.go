//go:build unix && !linux

package workers

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// process is a worker's process. Without pidfds an adopted one is watched by
// polling, which trusts that its pid is not reused within the interval.
type process struct {
	pid   int
	child bool
	mu    sync.Mutex
	gone  bool
}

const adoptedPoll = 200 * time.Millisecond

func startProcess(path string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	return &process{pid: pid, child: true}, nil
}

func adoptProcess(pid int, handle *os.File) (*process, error) {
	handle.Close()
	return &process{pid: pid}, nil
}

func (p *process) wait() string {
	defer func() {
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
	}()
	if !p.child {
		for syscall.Kill(p.pid, 0) != syscall.ESRCH {
			time.Sleep(adoptedPoll)
		}
		return "unknown"
	}
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return "unknown"
		}
		return statusText(ws)
	}
}

func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != syscall.ESRCH {
		return err
	}
	return nil
}

// handle has nothing to give: the pid names the process. A file must stand in
// its place so that the list of files has the same shape everywhere.
func (p *process) handle() (*os.File, error) { return os.Open(os.DevNull) }

func (p *process) close() {}
