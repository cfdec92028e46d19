//go:build unix

package workers

import (
	"os"
	"sync"
)

// reservedFiles is enough for what one start of a worker opens.
const reservedFiles = 12

// reserve holds descriptors back, so that a master at its limit can still
// start the worker that will relieve it.
type reserve struct {
	mu     sync.Mutex // one worker is started at a time
	files  []*os.File
	closed bool
}

func newReserve() *reserve {
	r := &reserve{}
	r.fill()
	return r
}

func (r *reserve) fill() {
	for len(r.files) < reservedFiles && !r.closed {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return // at the limit: what there is has to do
		}
		r.files = append(r.files, f)
	}
}

// topUp makes up for what a start at the limit has left the reserve short of.
// It waits for nobody: a start under way fills the reserve itself.
func (r *reserve) topUp() {
	if r.mu.TryLock() {
		r.fill()
		r.mu.Unlock()
	}
}

// with runs f while the reserved descriptors are free.
func (r *reserve) with(f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, file := range r.files {
		file.Close()
	}
	r.files = r.files[:0]
	defer r.fill()
	return f()
}

func (r *reserve) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, file := range r.files {
		file.Close()
	}
	r.files = nil
	r.closed = true
}
