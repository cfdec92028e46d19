package framework

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// asyncHandler writes log records from a goroutine of its own. A master whose
// stderr is a pipe that nobody reads must go on; what does not fit in the queue
// is dropped, and counted in the next record that gets through.
type asyncHandler struct {
	slog.Handler
	q *logQueue
}

type logQueue struct {
	c       chan func()
	dropped atomic.Int64
}

const (
	waitingRecords = 1024
	lastRecords    = time.Second // for what is queued at the end
)

// asyncLogger returns l made asynchronous, and a function that waits for what
// is queued.
func asyncLogger(l *slog.Logger) (*slog.Logger, func()) {
	q := &logQueue{c: make(chan func(), waitingRecords)}
	go func() {
		for write := range q.c {
			if write == nil {
				return
			}
			write()
		}
	}()
	flush := func() {
		done := make(chan struct{})
		timeout := time.After(lastRecords)
		for _, f := range []func(){func() { close(done) }, nil} {
			select {
			case q.c <- f:
			case <-timeout:
				return
			}
		}
		select {
		case <-done:
		case <-timeout:
		}
	}
	return slog.New(asyncHandler{l.Handler(), q}), flush
}

// Handle implements slog.Handler.
func (h asyncHandler) Handle(_ context.Context, r slog.Record) error {
	r = r.Clone()
	if n := h.q.dropped.Load(); n > 0 {
		r.AddAttrs(slog.Int64("dropped_records", n))
	}
	select {
	case h.q.c <- func() { _ = h.Handler.Handle(context.Background(), r) }:
		h.q.dropped.Store(0)
	default:
		h.q.dropped.Add(1)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h asyncHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return asyncHandler{h.Handler.WithAttrs(attrs), h.q}
}

// WithGroup implements slog.Handler.
func (h asyncHandler) WithGroup(name string) slog.Handler {
	return asyncHandler{h.Handler.WithGroup(name), h.q}
}
