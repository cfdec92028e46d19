//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/internal/control"
)

// now is when the samples are looked at.
var now = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// sample is a service in the middle of a drain, with one worker that crashed.
func sample() control.Status {
	first := control.Binary{Path: "/srv/app/bin/app", Revision: "0123456789abcdef0123", Size: 9, MTime: ago(90 * time.Hour)}
	second := control.Binary{Path: "/srv/app/bin/app", Revision: "fedcba98765432100000", Modified: true, Size: 9, MTime: ago(time.Hour)}
	three, zero := 3, 0
	return control.Status{
		Schema: control.Schema, State: control.StateServing, Accepting: true,
		Master:    control.Master{PID: 4100, Started: ago(75*time.Hour + 3*time.Minute), Binary: first, RuntimeDir: "/run/app", FDs: 25, Goroutines: 31},
		Listeners: []control.Listener{{Name: "http", Network: "tcp", Address: "[::]:80", Accepted: 1200345}},
		Generations: []control.Generation{
			{
				Number: 6, State: control.GenerationDraining, Started: ago(5*time.Hour + 4*time.Minute), Age: 18240, Workers: 2, Binary: first,
				Ledger: control.Ledger{Accepted: 1200013, Acknowledged: 1200000, Pending: 0, Redispatched: 10,
					Refused: map[string]uint64{"no worker": 2, "stopping": 1}, Cut: 4},
				Processes: []control.Worker{
					{ID: "6.1", Slot: 1, PID: 4101, State: control.WorkerDraining, Started: ago(5 * time.Hour), Open: 12, Dispatched: 600001},
					{ID: "6.2", Slot: 2, PID: 0, State: control.WorkerKilled, Started: ago(5 * time.Hour), Restarts: 3, LastExit: "signal: killed"},
				},
			},
			{
				Number: 7, State: control.GenerationServing, Started: ago(42 * time.Second), Age: 42.7, Workers: 2, Dispatch: "weighted:3", Binary: second,
				Ledger: control.Ledger{Accepted: 332, Acknowledged: 330, Pending: 2},
				Processes: []control.Worker{
					{ID: "7.1", Slot: 1, PID: 4240, State: control.WorkerServing, Started: ago(42 * time.Second), Open: 160, Weight: &three, Dispatched: 166, Unacked: 1},
					{ID: "7.2", Slot: 2, PID: 14241, State: control.WorkerServing, Started: ago(42 * time.Second), Open: 158, Weight: &zero, Dispatched: 166, Unacked: 1},
				},
			},
		},
		Drained: control.Drained{Moved: map[string]int{"idle": 1180, "new": 3}, SoftDrained: map[string]int{"http2": 12},
			Finished: map[string]int{}, Cut: map[string]int{"deadline": 0}},
		LastDeploy: &control.Verdict{Action: control.ActionReload, Generation: 8, Reason: "worker 8.1 exited with status 2",
			Stderr: "panic: no database\n", TookMS: 130},
	}
}

func TestStatusTable(t *testing.T) {
	starting := control.Status{State: control.StateStarting,
		Master: control.Master{PID: 9, Started: ago(time.Second), Binary: control.Binary{Path: "/app", Version: "v1.2.3"}}}
	later := starting
	later.Schema = control.Schema + 1
	for name, st := range map[string]control.Status{"status": sample(), "starting": starting, "later": later} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			render(&b, st, now)
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("(-want +have; -update writes it anew):\n%s", d)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                   "0s",
		999 * time.Millisecond:         "0s",
		59 * time.Second:               "59s",
		time.Minute:                    "1m00s",
		59*time.Minute + 9*time.Second: "59m09s",
		time.Hour:                      "1h00m",
		47*time.Hour + 59*time.Minute:  "47h59m",
		48 * time.Hour:                 "2d0h",
		1000 * time.Hour:               "41d16h",
	} {
		if have := span(d); have != want {
			t.Errorf("%v: have %q, want %q", d, have, want)
		}
	}
}

func TestRevision(t *testing.T) {
	for _, tt := range []struct {
		b    control.Binary
		want string
	}{
		{control.Binary{}, "-"},
		{control.Binary{Version: "v1.2.3"}, "v1.2.3"},
		{control.Binary{Version: "v1.2.3", Revision: "abc"}, "abc"},
		{control.Binary{Revision: "0123456789abcdef", Modified: true}, "0123456789ab+"},
	} {
		if have := revision(tt.b); have != tt.want {
			t.Errorf("%+v: have %q, want %q", tt.b, have, tt.want)
		}
	}
}
