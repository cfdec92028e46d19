//go:build unix

package upgrade

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tableflip gives the new process our stderr, and what it writes there before
// it can speak to us is the reason why it fails. So it is told of a pipe, by
// the path of our end of it, puts that in place of its stderr when it starts,
// and takes the real one back before it takes over. Where there is no /proc it
// writes to our stderr only.
const stderrEnv = "_BATON_UPGRADE_STDERR"

// stderrTail is how much of it is kept; lastOutput how long its end is waited for.
const (
	stderrTail    = 8 << 10
	lastOutput    = 200 * time.Millisecond
	waitingChunks = 256 // of up to 4 KiB, for our stderr
)

// capture passes on what a new process writes, and keeps the end of it.
type capture struct {
	w    *os.File
	done chan struct{} // all is passed on

	mu   sync.Mutex
	tail []byte
}

// newCapture sets the variable that a process started from now on finds; close
// removes it.
func newCapture() (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &capture{w: w, done: make(chan struct{})}
	os.Setenv(stderrEnv, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.Fd()))
	// Our own stderr may be a pipe that nobody reads. That is no reason for the
	// new process to wait: what does not fit in the queue is kept from it.
	pass := make(chan []byte, waitingChunks)
	go func() {
		defer close(pass)
		defer r.Close()
		buf := make([]byte, 4<<10)
		for {
			n, err := r.Read(buf)
			c.keep(buf[:n])
			select {
			case pass <- slices.Clone(buf[:n]):
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(c.done)
		for b := range pass {
			_, _ = os.Stderr.Write(b)
		}
	}()
	return c, nil
}

func (c *capture) keep(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, b...)
	if extra := len(c.tail) - stderrTail; extra > 0 {
		c.tail = append(c.tail[:0], c.tail[extra:]...)
	}
}

// close ends the capture and returns the tail. Whoever still writes has the
// pipe for itself.
func (c *capture) close() string {
	os.Unsetenv(stderrEnv)
	c.w.Close()
	select {
	case <-c.done:
	case <-time.After(lastOutput):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.TrimSpace(string(c.tail))
}

// realStderr is the stderr that this process was given, while a pipe to the
// predecessor is in its place.
var realStderr *os.File

// redirect puts the predecessor's pipe in place of stderr.
func redirect() {
	path := os.Getenv(stderrEnv)
	os.Unsetenv(stderrEnv)
	if path == "" || !flipped {
		return
	}
	pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer pipe.Close()
	syscall.ForkLock.RLock()
	saved, err := syscall.Dup(2)
	if err == nil {
		syscall.CloseOnExec(saved)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return
	}
	if err := dup2(int(pipe.Fd()), 2); err != nil {
		syscall.Close(saved)
		return
	}
	realStderr = os.NewFile(uintptr(saved), "stderr")
}

// restore takes the real stderr back: once the predecessor is gone, a write to
// its pipe would kill this process.
func restore() {
	if realStderr != nil {
		_ = dup2(int(realStderr.Fd()), 2)
	}
}

// Stderr returns the stderr that this process was given, also while it writes
// to its predecessor. Processes that outlive the upgrade must be given this one.
func Stderr() *os.File {
	if realStderr != nil {
		return realStderr
	}
	return os.Stderr
}
