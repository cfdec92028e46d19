package framework

import (
	"testing"
	"time"

	"github.com/baton-go/baton/workers"
)

// TestLogLines pins what operators search for.
func TestLogLines(t *testing.T) {
	w := workers.ID{Generation: 7, Slot: 2}
	tests := []struct {
		event workers.Event
		line  string
	}{
		{
			workers.GenerationServing{Generation: 7, Workers: 4, Revision: "ab12345cdef", Took: 812 * time.Millisecond, Previous: 6},
			`level=INFO msg="generation 7 serving" workers=4 revision=ab12345 took=812ms previous=6`,
		},
		{
			workers.GenerationServing{Generation: 1, Workers: 1, Took: 61400 * time.Millisecond},
			`level=INFO msg="generation 1 serving" workers=1 revision=unknown took=1m1s previous=0`,
		},
		{
			workers.GenerationDrained{Generation: 6, Drained: workers.Drained{Finished: workers.Tally{"http1": 38, "other": 2}, Moved: workers.Tally{"idle": 7}}, Took: 1104 * time.Millisecond},
			`level=INFO msg="generation 6 drained" moved=7 soft_drained=0 finished=40 cut=0 took=1.1s`,
		},
		{
			workers.GenerationDrained{Generation: 6, Drained: workers.Drained{SoftDrained: workers.Tally{"http2": 39}, Cut: workers.Tally{workers.CutDeadline: 1}}, Took: 30 * time.Second},
			`level=WARN msg="generation 6 drained" moved=0 soft_drained=39 finished=0 cut=1 took=30s`,
		},
		{
			workers.GenerationRefused{Generation: 7, Reason: "worker 7.1: exit status 1", Stderr: "no database"},
			`level=ERROR msg="generation 7 refused" reason="worker 7.1: exit status 1" stderr="no database"`,
		},
		{
			workers.GenerationRefused{Generation: 7, Reason: "late"},
			`level=ERROR msg="generation 7 refused" reason=late`,
		},
		{
			workers.GenerationFailing{Generation: 7, Crashes: 3, After: 4100 * time.Millisecond, Reason: "exit status 2"},
			`level=ERROR msg="generation 7 fails" crashes=3 after=4.1s reason="exit status 2"`,
		},
		{
			workers.WorkerForked{Worker: w, PID: 12, Restart: true},
			`level=DEBUG msg="worker forked" worker=7.2 pid=12 restart=true`,
		},
		{
			workers.WorkerReady{Worker: w, PID: 12, Took: time.Millisecond},
			`level=DEBUG msg="worker ready" worker=7.2 pid=12 took=1ms`,
		},
		{
			workers.WorkerDraining{Worker: w, PID: 12, Reason: "told to"},
			`level=DEBUG msg="worker draining" worker=7.2 pid=12 reason="told to"`,
		},
		{
			workers.WorkerStalled{Worker: w, PID: 12, For: 1256 * time.Millisecond},
			`level=WARN msg="worker does not answer, it gets no connections" worker=7.2 pid=12 for=1.26s`,
		},
		{
			workers.WorkerResumed{Worker: w, PID: 12},
			`level=INFO msg="worker answers again" worker=7.2 pid=12`,
		},
		{
			workers.WorkerKilled{Worker: w, PID: 12, Reason: "hangs"},
			`level=WARN msg="worker killed" worker=7.2 pid=12 reason=hangs`,
		},
		{
			workers.WorkerExited{Worker: w, PID: 12, Status: "exit status 0", Expected: true},
			`level=DEBUG msg="worker exited" worker=7.2 pid=12 status="exit status 0" cut=0`,
		},
		{
			workers.WorkerExited{Worker: w, PID: 12, Status: "signal: killed", Cut: 3, Requeued: 2, Output: "panic", Respawn: 100 * time.Millisecond},
			`level=ERROR msg="worker died" worker=7.2 pid=12 status="signal: killed" cut=3 requeued=2 respawn=100ms output=panic`,
		},
		{
			workers.WorkerExited{Worker: w, PID: 12, Status: "exit status 2", Respawn: -1},
			`level=ERROR msg="worker died" worker=7.2 pid=12 status="exit status 2" cut=0 requeued=0`,
		},
		{
			workers.AcceptPaused{Listener: "default", Reason: "too many open files"},
			`level=WARN msg="accepting paused, connections wait in the kernel's queue" listener=default reason="too many open files"`,
		},
		{
			workers.AcceptResumed{Listener: "default", After: 2 * time.Second},
			`level=INFO msg="accepting again" listener=default after=2s`,
		},
	}
	for _, tt := range tests {
		b := newLogBuffer()
		logger{b.logger()}.event(tt.event)
		if got := b.String(); got != tt.line+"\n" {
			t.Errorf("%T:\n got %swant %s", tt.event, got, tt.line)
		}
	}
}
