//go:build unix

package workers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// runTask is the life of this binary when a test has started it. It returns
// the exit status.
func runTask(task string) int {
	var status int
	switch {
	case task == "stay": // until stdin ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 0
	case task == "foster": // the parent of one that stays
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), taskEnv+"=stay")
		cmd.Stdin = os.Stdin
		if err := cmd.Start(); err != nil {
			return fail(err)
		}
		fmt.Println(cmd.Process.Pid)
		_ = cmd.Wait()
		return 0
	case task == "worker":
		if err := work(); err != nil {
			return fail(err)
		}
		return 0
	case task == "serve":
		if err := serve(); err != nil {
			return fail(err)
		}
		return 0
	case task == "stray":
		if _, ok := Marked(); ok {
			return fail(errors.New("a stray marker was believed"))
		}
		if v, ok := os.LookupEnv(MarkerEnv); ok {
			return fail(fmt.Errorf("the marker is still there: %s", v))
		}
		return 0
	}
	if n, err := fmt.Sscanf(task, "exit %d", &status); n == 1 && err == nil {
		return status
	}
	return fail(fmt.Errorf("unknown task %q", task))
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// work is a worker with one connection, which dies of a panic.
func work() error {
	mark, ok := Marked()
	if !ok {
		return errors.New("not marked")
	}
	cloexec := true
	for fd := uintptr(workerIPC); fd <= workerCrash; fd++ {
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		cloexec = cloexec && err == nil && flags&unix.FD_CLOEXEC != 0
	}
	var foreign []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "NOTIFY_") || strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, "_BATON_") {
			foreign = append(foreign, kv)
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	settings, err := json.Marshal(struct {
		Args    []string `json:"args"`
		Env     []string `json:"env"`
		ID      string   `json:"id"`
		Cloexec bool     `json:"cloexec"`
		Dir     string   `json:"dir"`
	}{os.Args, foreign, mark.ID().String(), cloexec, dir})
	if err != nil {
		return err
	}
	w, err := mark.Join(settings)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "about to be ready")
	if err := w.Ready(); err != nil {
		return err
	}
	c, err := w.Listeners()[0].Accept()
	if err != nil {
		return err
	}
	buf := make([]byte, 1)
	if _, err := c.Read(buf); err != nil {
		return err
	}
	if _, err := c.Write(buf); err != nil {
		return err
	}
	<-w.Drain()
	w.Drained(Drained{Finished: Tally{"other": 1}})
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := dup2(int(null.Fd()), 2); err != nil { // the trace is for the master only
		return err
	}
	panic("the end")
}

// echo sends every byte back, but for a question mark: that is answered with
// what the master shares.
func echo(c net.Conn, shared *atomic.Value) {
	defer c.Close()
	b := make([]byte, 1)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		answer := b
		if b[0] == '?' {
			answer = fmt.Appendf(nil, "%s\n", shared.Load())
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// serve is a worker that echoes until it is drained and its connections are gone.
func serve() error {
	mark, ok := Marked()
	if !ok {
		return errors.New("not marked")
	}
	w, err := mark.Join(nil)
	if errors.Is(err, ErrNotWanted) {
		return nil
	}
	if err != nil {
		return err
	}
	var shared atomic.Value
	shared.Store([]byte("nothing"))
	select {
	case b := <-w.Shared():
		shared.Store(b)
	default:
	}
	go func() {
		for b := range w.Shared() {
			shared.Store(b)
		}
	}()
	l := w.Listeners()[0]
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(c, &shared)
		}
	}()
	if err := w.Ready(); err != nil {
		return err
	}
	select {
	case <-w.Orphaned():
		return nil
	case o := <-w.Drain():
		w.Finish()
		<-l.Empty()
		for w.Open() > 0 && o.Timeout > 0 {
			select {
			case <-w.Ended():
			case o = <-w.Drain():
			case <-w.Orphaned():
				return nil
			}
		}
	}
	w.Drained(Drained{})
	return nil
}
