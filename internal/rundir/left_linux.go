package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// leftWorker is a process that a dead master has left.
type leftWorker struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Page  struct {
		Dev uint64 `json:"dev"`
		Ino uint64 `json:"ino"`
	} `json:"page"` // a file in memory that it shares with its master, and nobody else
}

// alive says whether it lives: a pid alone may be another process' by now.
func (w leftWorker) alive() bool { return w.Start != 0 && startOf(w.PID) == w.Start }

// Left counts the workers that a dead master has left in the runtime directory
// dir and that are alive: for somebody who wonders why nobody answers. It is no
// proof of anything.
func Left(dir string) int { return len(leftIn(dir)) }

func leftIn(dir string) (living []leftWorker) {
	data, err := (&Dir{path: filepath.Clean(dir)}).ReadRecord()
	if err != nil || data == nil {
		return nil
	}
	// A part of what package workers writes.
	var r struct {
		Generations []struct {
			Workers []leftWorker `json:"workers"`
		} `json:"generations"`
	}
	if json.Unmarshal(data, &r) != nil {
		return nil
	}
	for _, g := range r.Generations {
		for _, w := range g.Workers {
			if w.alive() {
				living = append(living, w)
			}
		}
	}
	return living
}

// proven says whether it has the file that a worker of the record has: what a
// record says of a process may be wrong.
func (w leftWorker) proven() bool {
	dir := fmt.Sprintf("/proc/%d/fd/", w.PID)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat(dir+e.Name(), &st) == nil && st.Ino == w.Page.Ino && uint64(st.Dev) == w.Page.Dev {
			return true
		}
	}
	return false
}

// signal signals this very process, if it is a worker that waits for a master; it
// says whether it is.
func (w leftWorker) signal(sigs ...syscall.Signal) (bool, error) {
	fd, err := unix.PidfdOpen(w.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("worker %d: %w", w.PID, err)
	}
	defer unix.Close(fd)
	if !w.proven() || !w.alive() { // once the descriptor is there: then it is of the same process
		return false, nil
	}
	for _, sig := range sigs {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return false, fmt.Errorf("worker %d: %w", w.PID, err)
		}
	}
	return true, nil
}

// lockedWait is how long Dismiss waits for the lock of a master that is dead:
// workers that leave take it for a moment.
const lockedWait = 2 * time.Second

// Dismiss makes the workers that a dead master has left in dir finish and leave,
// or cut what they have, if now is true, and returns how many there are.
// *HeldError: there is a master. What is left of the service in dir they remove
// themselves, the last one of them.
func Dismiss(dir string, now bool) (n int, err error) {
	if len(leftIn(dir)) == 0 {
		return 0, nil
	}
	d, err := Open(dir)
	if err != nil {
		return 0, err
	}
	lock, err := d.await(lockedWait)
	if err != nil {
		return 0, err
	}
	defer lock.Close() // no master can adopt them meanwhile
	sigs := []syscall.Signal{syscall.SIGTERM}
	if now {
		sigs = append(sigs, syscall.SIGINT) // one after the other, which two of a kind need not be
	}
	var errs []error
	for _, w := range leftIn(dir) {
		told, err := w.signal(sigs...)
		if told {
			n++
		}
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// startOf is when a process started, in clock ticks since boot; 0 if there is
// none, or a zombie.
func startOf(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third field on
	if len(f) < 20 || f[0] == "Z" {
		return 0
	}
	start, _ := strconv.ParseUint(f[19], 10, 64)
	return start
}
