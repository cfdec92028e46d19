//go:build unix

package workers

import (
	"io"
	"os"
	"strings"
	"sync"
)

// outputTail is how much of a worker's stderr and crash trace is kept.
const outputTail = 8 << 10

// output passes on what a worker writes to stderr until it is ready, and keeps
// the end of it: the reason why a release does not start is there.
type output struct {
	mu   sync.Mutex
	tail []byte
	done chan struct{} // closed at the end of the pipe
}

// newOutput copies r to dst until it ends. Should dst block, so does the worker.
func newOutput(r *os.File, dst io.Writer) *output {
	o := &output{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer r.Close()
		buf := make([]byte, 4<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				o.keep(buf[:n])
				_, _ = dst.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return o
}

func (o *output) keep(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, b...)
	if extra := len(o.tail) - outputTail; extra > 0 {
		o.tail = append(o.tail[:0], o.tail[extra:]...)
	}
}

func (o *output) String() string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(string(o.tail))
}

// unsaid is what stderr tells beyond the reason: nothing, if it is one line that
// ends with it.
func unsaid(reason, stderr string) string {
	if !strings.Contains(stderr, "\n") && strings.HasSuffix(stderr, reason) {
		return ""
	}
	return stderr
}

// readTrace returns the end of the crash trace that a worker left, if any.
func readTrace(f *os.File) string {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return ""
	}
	b := make([]byte, min(info.Size(), outputTail))
	// The head says what happened, the first goroutine says where.
	n, _ := f.ReadAt(b, 0)
	return strings.TrimSpace(string(b[:n]))
}
