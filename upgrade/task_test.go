//go:build unix

package upgrade

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// taskEnv makes the test binary run as the old process of an upgrade. The new
// one has it too, and finds in candidateEnv how it is to behave.
const (
	taskEnv      = "UPGRADE_TEST_TASK"
	candidateEnv = "UPGRADE_TEST_CANDIDATE"
)

// report is what the processes say on stdout, a line each.
type report struct {
	Who       string
	PID       int
	Err       string
	Stderr    string
	Froze     int
	Thawed    int
	Successor int
	Offer     string
	Entries   []string // owner=data:content of each file
	Kept      string
	Parent    bool
	Marker    bool // tableflip's is in the environment
	Leaky     bool // its descriptors are inheritable
	Cause     bool // the error matches the cause of the context
}

func say(r report) {
	r.PID = os.Getpid()
	b, _ := json.Marshal(r)
	fmt.Printf("%s\n", b)
}

// tasks are others that the test binary can run as.
var tasks = map[string]func() int{}

func runTask() int {
	if task := tasks[os.Getenv(taskEnv)]; task != nil {
		return task()
	}
	r := report{Who: "old", Marker: os.Getenv(flipEnv) != ""}
	u, err := New(Options{Timeout: 15 * time.Second, CancelTimeout: 2 * time.Second})
	if err != nil {
		r.Err = err.Error()
		say(r)
		return 1
	}
	if p := u.Predecessor(); p != nil {
		return candidate(u, p)
	}
	if os.Getenv(taskEnv) == "alone" {
		say(r)
		return 0
	}
	if err := old(u); err != nil {
		say(report{Who: "old", Err: err.Error()})
		return 1
	}
	return 0
}

// old upgrades as often as stdin has lines: how the candidate is to behave.
func old(u *Upgrader) error {
	kept, err := textFile("kept")
	if err != nil {
		return err
	}
	if err := u.Keep("test/kept", kept); err != nil {
		return err
	}
	kept.Close()
	if err := u.Ready(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		os.Setenv(candidateEnv, lines.Text())
		limit := stepTimeout
		if lines.Text() == "hangs" || lines.Text() == "slow" {
			stepTimeout = time.Second
		}
		r := report{Who: "old"}
		cause := errors.New("the test wants it to end")
		ctx, cancel := context.WithCancelCause(context.Background())
		if lines.Text() == "cancelled" {
			// Once the new process has said that it waits, see candidate.
			go func() {
				f, err := os.OpenFile(os.Getenv("UPGRADE_TEST_FIFO"), os.O_RDONLY, 0)
				if err == nil {
					_, _ = io.ReadAll(f)
					f.Close()
				}
				cancel(cause)
			}()
		}
		successor, err := u.Upgrade(ctx, Handover{
			Offer: []byte("the offer"),
			Freeze: func() ([]Entry, error) {
				r.Froze++
				if lines.Text() == "freeze fails" {
					return nil, errors.New("too warm")
				}
				return entries()
			},
			Thaw: func() {
				r.Thawed++
				if lines.Text() == "slow" { // it serves again, and is killed now
					r.Who = "old, thawed"
					say(r)
					_ = unix.Kill(os.Getpid(), unix.SIGKILL)
					select {}
				}
			},
		})
		r.Cause = errors.Is(err, cause)
		cancel(nil)
		stepTimeout = limit
		if err != nil {
			var refused *RefusedError
			if !errors.As(err, &refused) {
				return fmt.Errorf("error of type %T: %w", err, err)
			}
			r.Err, r.Stderr = refused.Reason, refused.Stderr
			say(r)
			continue
		}
		r.Successor = successor.Pid
		say(r)
		return nil
	}
	return nil
}

func entries() ([]Entry, error) {
	var es []Entry
	for i, owner := range []string{"a", "b"} {
		e := Entry{Owner: owner, Data: []byte("data of " + owner)}
		for j := range i + 1 {
			f, err := textFile(fmt.Sprint(owner, j))
			if err != nil {
				return es, err
			}
			e.Files = append(e.Files, f)
		}
		es = append(es, e)
	}
	return es, nil
}

func textFile(text string) (*os.File, error) {
	f, err := os.CreateTemp("", "")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	_, err = io.WriteString(f, text)
	return f, err
}

func text(f *os.File) string {
	defer f.Close()
	b := make([]byte, 64)
	n, _ := f.ReadAt(b, 0)
	return string(b[:n])
}

// candidate is the new process.
func candidate(u *Upgrader, p *Predecessor) int {
	r := report{Who: "new", Parent: true, Marker: os.Getenv(flipEnv) != ""}
	for fd := uintptr(flipReady); fd <= flipParent; fd++ {
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		r.Leaky = r.Leaky || err != nil || flags&unix.FD_CLOEXEC == 0
	}
	failed := func(err error) int {
		r.Err = err.Error()
		say(r)
		return 1
	}
	how := os.Getenv(candidateEnv)
	switch how {
	case "exits":
		fmt.Fprintln(os.Stderr, "port 80 is not for me")
		return 3
	case "refuses":
		p.Refuse("the configuration is bad")
		return 1
	}
	offer, err := p.Offer()
	if err != nil {
		return failed(err)
	}
	r.Offer = string(offer)
	kept, err := u.Inherit("test/kept")
	if err != nil || kept == nil {
		return failed(fmt.Errorf("nothing was kept: %w", err))
	}
	r.Kept = text(kept)
	if how == "cancelled" {
		f, err := os.OpenFile(os.Getenv("UPGRADE_TEST_FIFO"), os.O_WRONLY, 0)
		if err != nil {
			return failed(err)
		}
		f.Close()
		<-p.Lost()
		if _, err := p.Prepared(); !errors.Is(err, ErrCancelled) {
			return failed(fmt.Errorf("Prepared: %w", err))
		}
		return 0
	}
	es, err := p.Prepared()
	if err != nil {
		if how == "freeze fails" {
			return 0
		}
		return failed(err)
	}
	for _, e := range es {
		s := e.Owner + "=" + string(e.Data)
		for _, f := range e.Files {
			s += ":" + text(f)
		}
		r.Entries = append(r.Entries, s)
	}
	switch how {
	case "hangs":
		select {}
	case "slow":
		time.Sleep(2 * time.Second)
	case "dies":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "loses its predecessor":
		_ = unix.Kill(os.Getppid(), unix.SIGKILL)
		<-p.Lost()
	case "leaks":
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), taskEnv+"=alone")
		cmd.Stdout = os.Stdout
		if err := cmd.Run(); err != nil {
			return failed(err)
		}
	}
	if err := p.Accept(); err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Gone(ctx); err != nil {
		return failed(err)
	}
	if how == "loses its predecessor" { // it is as good as any, and can be replaced
		os.Setenv(candidateEnv, "good")
		if _, err := u.Upgrade(ctx, Handover{Offer: []byte("the offer"), Freeze: entries, Thaw: func() {}}); err != nil {
			return failed(err)
		}
	}
	say(r)
	return 0
}
