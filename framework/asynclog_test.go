package framework

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// blockedWriter takes nothing until it is opened, as a pipe that nobody reads.
type blockedWriter struct {
	*logBuffer
	open chan struct{}
}

func (b blockedWriter) Write(p []byte) (int, error) {
	<-b.open
	return b.logBuffer.Write(p)
}

func TestBlockedLogStopsNobody(t *testing.T) {
	w := blockedWriter{newLogBuffer(), make(chan struct{})}
	l, flush := asyncLogger(slog.New(slog.NewTextHandler(w, nil)))
	const more = 100
	for i := range waitingRecords + more {
		l.With("a", 1).WithGroup("g").Info("line", "i", i)
	}
	close(w.open)
	w.await(t, fmt.Sprintf("g.i=%d", waitingRecords-1))
	l.Info("after")
	flush()
	text := w.String()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	// One more than fit may have been taken out of the queue.
	if n := len(lines); n != waitingRecords+1 && n != waitingRecords+2 {
		t.Errorf("%d lines", n)
	}
	for i, line := range lines[:waitingRecords] {
		if !strings.Contains(line, fmt.Sprintf(" a=1 g.i=%d", i)) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	last := lines[len(lines)-1]
	if !strings.Contains(last, "msg=after dropped_records=100") && !strings.Contains(last, "msg=after dropped_records=99") {
		t.Errorf("last line %q", last)
	}
}

func TestFlushIsBounded(t *testing.T) {
	w := blockedWriter{newLogBuffer(), make(chan struct{})}
	l, flush := asyncLogger(slog.New(slog.NewTextHandler(w, nil)))
	l.Info("line")
	began := time.Now()
	flush()
	if took := time.Since(began); took > lastRecords+patience/2 {
		t.Errorf("took %v", took)
	}
	close(w.open)
	w.await(t, "msg=line")
}
