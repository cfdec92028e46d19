//go:build linux

package integration

import (
	"bufio"
	"io"
	"strings"
	"sync"
	"time"
)

// logBuffer keeps the lines that a service has written to stdout and stderr.
type logBuffer struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed and renewed at each line
}

func newLogBuffer() *logBuffer { return &logBuffer{more: make(chan struct{})} }

func (b *logBuffer) read(r io.ReadCloser) {
	defer r.Close()
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			b.mu.Lock()
			b.lines = append(b.lines, strings.TrimSuffix(line, "\n"))
			close(b.more)
			b.more = make(chan struct{})
			b.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func (b *logBuffer) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[:len(b.lines):len(b.lines)]
}

// find returns the number of the first line that has part in it, -1 if none.
func (b *logBuffer) find(part string) int {
	for i, l := range b.all() {
		if strings.Contains(l, part) {
			return i
		}
	}
	return -1
}

// countLog returns how many lines have part in them.
func (s *service) countLog(part string) int {
	n := 0
	for _, l := range s.log.all() {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

// waitLog waits for a line with part in it, which may have been written
// already, and returns the first one.
func (s *service) waitLog(part string) string {
	s.t.Helper()
	timeout := time.After(waitTime)
	for {
		s.log.mu.Lock()
		more := s.log.more
		s.log.mu.Unlock()
		if i := s.log.find(part); i >= 0 {
			return s.log.all()[i]
		}
		select {
		case <-more:
		case <-timeout:
			s.t.Fatalf("no line with %q in the log within %v", part, waitTime)
		}
	}
}
