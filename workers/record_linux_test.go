package workers

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// recorder is where a pool keeps its record.
type recorder struct {
	mu     sync.Mutex
	busy   bool
	twice  bool
	fails  bool
	last   []byte
	writes int
	wrote  chan struct{} // holds one
}

func newRecorder() *recorder { return &recorder{wrote: make(chan struct{}, 1)} }

func (r *recorder) write(b []byte) error {
	r.mu.Lock()
	r.twice, r.busy = r.twice || r.busy, true
	r.mu.Unlock()
	time.Sleep(time.Millisecond) // so that another may come meanwhile
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = false
	if r.fails {
		return errors.New("disk full")
	}
	r.last, r.writes = bytes.Clone(b), r.writes+1
	select {
	case r.wrote <- struct{}{}:
	default:
	}
	return nil
}

// until waits for a record that is as described.
func (r *recorder) until(t *testing.T, f func(poolRecord) bool) poolRecord {
	t.Helper()
	for timeout := time.After(patience); ; {
		var rec poolRecord
		r.mu.Lock()
		if r.last != nil {
			if err := json.Unmarshal(r.last, &rec); err != nil {
				t.Fatal(err)
			}
		}
		r.mu.Unlock()
		if f(rec) {
			return rec
		}
		select {
		case <-r.wrote:
		case <-timeout:
			t.Fatalf("no such record; the last is %+v", rec)
		}
	}
}

func orphanOptions(limit time.Duration) Options {
	o := testOptions
	o.OrphanTimeout = limit
	return o
}

func TestRecordNamesTheWorkersBeforeTheyServe(t *testing.T) {
	l := bind(t)
	p := newTestPool(t, l, orphanOptions(time.Minute))
	r := newRecorder()
	p.KeepRecord("/nowhere/adopt.sock", nil, r.write)
	if err := p.prepare(1, "serve"); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(1); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	first := r.last
	r.mu.Unlock()
	var rec poolRecord
	if err := json.Unmarshal(first, &rec); err != nil || len(rec.Generations) != 1 || len(rec.Generations[0].Workers) != 2 {
		t.Fatalf("when the commit returns the record is %s", first)
	}
	s, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range rec.Generations[0].Workers {
		start, err := startTime(w.PID)
		if err != nil || w.Start != start || w.PID != s.Generations[0].Workers[i].PID || w.Nonce == "" || w.Page == (fileID{}) || w.Crash == (fileID{}) {
			t.Errorf("worker %+v, start %d, %v", w, start, err)
		}
	}
	if ls := rec.Listeners; len(ls) != 1 || ls[0].Bound != l.Addr().String() || ls[0].Cookie == 0 || rec.Next != 2 {
		t.Errorf("listeners %+v, next generation %d", ls, rec.Next)
	}
	if bytes.Contains(first, []byte(taskEnv)) {
		t.Error("it has the environment of the workers")
	}
	trusted := func() (n int) {
		_ = p.do(func() {
			for _, c := range p.serving.children {
				if c.entrusted {
					n++
				}
			}
		})
		return n
	}
	if n := trusted(); n != 2 {
		t.Errorf("%d workers are trusted", n)
	}

	p.commit(2)
	r.until(t, func(rec poolRecord) bool {
		g := rec.Generations
		return len(g) > 0 && g[len(g)-1].Number == 2 && g[len(g)-1].State == GenerationIsServing
	})
	r.until(t, func(rec poolRecord) bool { return len(rec.Generations) == 1 && rec.Next == 3 })
	p.Stopping()
	p.Stop(patience, "the test ends")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.twice {
		t.Error("two writes at a time")
	}
}

func TestWorkersThatAreNotInARecordAreNotTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		limit time.Duration
		fails bool
	}{"not wanted": {0, false}, "nothing can be written": {time.Minute, true}} {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, bind(t), orphanOptions(c.limit))
			r := newRecorder()
			r.fails = c.fails
			p.KeepRecord("/nowhere/adopt.sock", nil, r.write)
			p.commit(1)
			if c.fails {
				next[RecordFailed](p)
			}
			_ = p.do(func() {
				if slices.ContainsFunc(p.serving.children, func(c *child) bool { return c.entrusted }) {
					t.Error("a worker is trusted")
				}
			})
			if c.fails { // and are when it can
				r.mu.Lock()
				r.fails = false
				r.mu.Unlock()
				r.until(t, func(rec poolRecord) bool { return len(rec.Generations) == 1 })
			}
			p.Stop(patience, "the test ends")
			if err := p.ended(); err != nil {
				t.Error(err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if !c.fails && r.last != nil {
				t.Errorf("a record of nobody: %s", r.last)
			}
		})
	}
}
