//go:build unix

package workers

import (
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

// forward writes what several workers say to one place, which may be a pipe
// that nobody reads. Who writes to it waits for a moment at most: a slow reader
// is waited for, from one that does not read at all what does not fit in the
// queue is kept.
type forward struct {
	dst     io.Writer
	queue   chan []byte
	quit    chan struct{}
	ended   chan struct{}
	stuck   atomic.Bool
	dropped atomic.Int64
}

const (
	waitingChunks = 256 // of up to 4 KiB
	stuckAfter    = time.Second
)

func newForward(dst io.Writer) *forward {
	return &forward{dst: dst, queue: make(chan []byte, waitingChunks), quit: make(chan struct{}), ended: make(chan struct{})}
}

// Write implements io.Writer. It never fails.
func (f *forward) Write(b []byte) (int, error) {
	chunk := slices.Clone(b)
	select {
	case f.queue <- chunk:
		return len(b), nil
	case <-f.quit:
		return len(b), nil
	default:
	}
	if !f.stuck.Load() {
		select {
		case f.queue <- chunk:
			return len(b), nil
		case <-f.quit:
			return len(b), nil
		case <-time.After(stuckAfter):
			f.stuck.Store(true)
		}
	}
	f.dropped.Add(int64(len(b)))
	return len(b), nil
}

// run writes until close, and then what is queued.
func (f *forward) run() {
	defer close(f.ended)
	for {
		select {
		case b := <-f.queue:
			f.pass(b)
			continue
		case <-f.quit:
		}
		for {
			select {
			case b := <-f.queue:
				f.pass(b)
				continue
			default:
			}
			return
		}
	}
}

func (f *forward) pass(b []byte) {
	_, _ = f.dst.Write(b)
	f.stuck.Store(false)
	if n := f.dropped.Swap(0); n > 0 {
		fmt.Fprintf(f.dst, "\nbaton: %d bytes that workers wrote to stderr were dropped: nobody read it\n", n)
	}
}

// close ends run once it has written what is queued, or does not get on with it.
func (f *forward) close() {
	close(f.quit)
	select {
	case <-f.ended:
	case <-time.After(outputWait):
	}
}
