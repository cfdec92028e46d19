package framework

import (
	"sync"

	"github.com/baton-go/baton/workers"
)

// tally counts what becomes of the connections of a process that drains.
type tally struct {
	mu sync.Mutex
	d  workers.Drained
}

// moved: a connection went to another worker.
func (t *tally) moved(reason string) { t.count(&t.d.Moved, reason) }

// softDrained: a connection ended that had been told to.
func (t *tally) softDrained(kind string) { t.count(&t.d.SoftDrained, kind) }

// finished: a connection ended by itself.
func (t *tally) finished(kind string) { t.count(&t.d.Finished, kind) }

func (t *tally) count(of *workers.Tally, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if *of == nil {
		*of = workers.Tally{}
	}
	(*of)[reason]++
}

// drained is the account when the drain is over: there were total connections,
// given of them to other workers, and cut were open at the deadline. Those given
// that nobody has counted were handed off; the rest were a Serve function's, and
// have ended.
func (t *tally) drained(total, given, cut int) workers.Drained {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := workers.Drained{}.With(t.d)
	if n := given - d.Moved.Total(); n > 0 {
		d.Moved["handoff"] = n
	}
	if cut > 0 {
		d.Cut[workers.CutDeadline] = cut
	}
	known := d.Moved.Total() + d.SoftDrained.Total() + d.Finished.Total() + cut
	if rest := total - known; rest > 0 {
		d.Finished["other"] += rest
	}
	return d
}
