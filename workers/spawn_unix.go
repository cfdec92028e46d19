//go:build unix

package workers

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/baton-go/baton/workers/ipc"
)

// MarkerEnv is the environment variable that makes a process a worker. It
// counts only together with a socket of ours at descriptor 3 and a greeting
// that repeats its nonce.
const MarkerEnv = "_BATON_WORKER"

// Descriptors of a new worker, after the three standard ones. Its stderr is a
// pipe to the master; the real one is at workerStderr, put back once ready.
const (
	workerIPC    = 3
	workerPage   = 4
	workerStderr = 5
	workerCrash  = 6
	workerBinary = 7 // what it was executed from
)

// marker is what MarkerEnv holds.
type marker struct {
	Nonce      string `json:"nonce"`
	Generation int    `json:"generation"`
	Slot       int    `json:"slot"`
	Argv0      string `json:"argv0"`
}

// foreignEnv are variables that speak to the master alone. Those of systemd are
// named in full: a LISTEN_ADDR is the application's.
var foreignEnv = []string{
	"NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=",
	"LISTEN_PID=", "LISTEN_PIDFDID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
	"TABLEFLIP_", "_BATON_",
}

func workerEnv(env []string, m marker) []string {
	out := make([]string, 0, len(env)+1)
next:
	for _, kv := range env {
		for _, prefix := range foreignEnv {
			if strings.HasPrefix(kv, prefix) {
				continue next
			}
		}
		out = append(out, kv)
	}
	return append(out, MarkerEnv+"="+string(encode(m)))
}

func parseMarker(s string) (marker, error) {
	var m marker
	err := json.Unmarshal([]byte(s), &m)
	if err == nil && (m.Nonce == "" || m.Generation < 1 || m.Slot < 1) {
		err = errors.New("incomplete")
	}
	return m, err
}

// started is a worker's process and the master's ends of what they share.
type started struct {
	proc  *process
	conn  *ipc.Conn
	page  *os.File
	crash *os.File
	out   *output
	nonce string
}

// start runs b as worker id, in a process group of its own so that a Ctrl-C
// reaches the master only. What it writes until it is ready goes to stderr, too.
func start(b *Binary, id ID, cfg Config, env []string, stderr io.Writer) (s *started, err error) {
	s = &started{nonce: rand.Text()}
	var opened []*os.File // the worker's ends
	defer func() {
		for _, f := range opened {
			f.Close()
		}
		if err != nil {
			s.close()
			s = nil
		}
	}()
	conn, remote, err := ipc.Pair()
	if err != nil {
		return s, fmt.Errorf("worker socket: %w", err)
	}
	s.conn = conn
	opened = append(opened, remote)
	if s.page, err = anonFile("baton-counters", pageFile); err != nil {
		return s, err
	}
	if s.crash, err = anonFile("baton-crash", 0); err != nil {
		return s, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return s, err
	}
	opened = append(opened, errW)
	null, err := os.Open(os.DevNull)
	if err != nil {
		errR.Close()
		return s, err
	}
	opened = append(opened, null)

	m := marker{Nonce: s.nonce, Generation: id.Generation, Slot: id.Slot, Argv0: cfg.Argv[0]}
	title := fmt.Sprintf("%s: worker %s", filepath.Base(cfg.Argv[0]), id)
	attr := &syscall.ProcAttr{
		Dir: cfg.Dir,
		Env: workerEnv(env, m),
		Files: []uintptr{
			null.Fd(), os.Stdout.Fd(), errW.Fd(),
			remote.Fd(), s.page.Fd(), cfg.Stderr.Fd(), s.crash.Fd(), b.file.Fd(),
		},
		Sys: &syscall.SysProcAttr{Setpgid: true, Credential: cfg.Account.credential()},
	}
	exec := func() (err error) {
		s.proc, err = startProcess(b.execPath(workerBinary), append([]string{title}, cfg.Argv[1:]...), attr)
		return err
	}
	if cfg.Account != nil {
		err = confined(exec)
	} else {
		err = exec()
	}
	if err != nil {
		errR.Close()
		return s, fmt.Errorf("start %s: %w", b.Path, err)
	}
	s.out = newOutput(errR, stderr)
	return s, nil
}

func (s *started) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.page != nil {
		s.page.Close()
	}
	if s.crash != nil {
		s.crash.Close()
	}
	if s.proc != nil {
		s.proc.close()
	}
}
