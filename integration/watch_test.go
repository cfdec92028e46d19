//go:build linux

package integration

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// masterWatch keeps the most that a master takes at any time: what is given back at
// the end of an attack may have been everything in between.
type masterWatch struct {
	t          *testing.T
	fds0, rss0 int
	fds, rss   int
	quit       chan struct{}
	done       sync.WaitGroup
	stop       func()
}

func watchMaster(t *testing.T, pid int) *masterWatch {
	t.Helper()
	w := &masterWatch{t: t, quit: make(chan struct{})}
	w.look(pid)
	w.fds0, w.rss0 = w.fds, w.rss
	if w.fds0 == 0 {
		t.Fatalf("process %d has no descriptors", pid)
	}
	w.stop = sync.OnceFunc(func() { close(w.quit); w.done.Wait() })
	w.done.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
				w.look(pid)
			}
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *masterWatch) look(pid int) {
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		w.fds = max(w.fds, len(entries))
	}
	var pages int
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		var size int
		_, _ = fmt.Sscan(string(b), &size, &pages)
	}
	w.rss = max(w.rss, pages*os.Getpagesize()>>10)
}

// mostFiles is what a master may have more of at any time, for one hostile worker:
// a message whose files are being closed and one that is read, of 253 each, and
// what the other workers and clients need meanwhile.
const mostFiles = 2*253 + 100

// requireBounded ends the watch.
func (w *masterWatch) requireBounded() {
	w.t.Helper()
	w.stop()
	w.t.Logf("the master had %d descriptors and %d at most, %d KiB and %d at most", w.fds0, w.fds, w.rss0, w.rss)
	if w.fds > w.fds0+mostFiles {
		w.t.Errorf("the master had %d descriptors at a time, %d before", w.fds, w.fds0)
	}
	if w.rss > w.rss0+mostGrowthKB() {
		w.t.Errorf("the master took %d KiB at a time, %d before", w.rss, w.rss0)
	}
}
