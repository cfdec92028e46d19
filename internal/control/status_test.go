package control

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// sample is a status in which every field says something.
func sample() Status {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	bin := Binary{Path: "/srv/app", Size: 1 << 20, MTime: at, GoVersion: "go1.26.0", Module: "example.com/app",
		Version: "v1.2.3", Revision: "0123456789abcdef", Modified: true}
	return Status{
		Schema: Schema, State: StateServing, Accepting: true, Pending: 3,
		Master:    Master{PID: 10, Started: at, Binary: bin, RuntimeDir: "/run/app", FDs: 20, Goroutines: 30, Upgrades: 1},
		Listeners: []Listener{{Name: "http", Network: "tcp", Address: "[::]:80", Accepted: 9}},
		Generations: []Generation{{
			Number: 2, State: GenerationServing, Started: at, Age: 1.5, Workers: 1, Binary: bin,
			Ledger:  Ledger{Accepted: 9, Acknowledged: 4, Pending: 1, Redispatched: 1, Refused: map[string]uint64{"full": 2, "gone": 1}, Cut: 1},
			Drained: Drained{Moved: map[string]int{"idle": 5}, SoftDrained: map[string]int{}, Finished: map[string]int{"http1": 1}, Cut: map[string]int{}},
			Processes: []Worker{{ID: "2.1", Slot: 1, PID: 11, State: WorkerServing, Started: at, Open: 5, Dispatched: 6,
				Unacked: 1, Restarts: 1, LastExit: "signal: killed"}},
		}},
		Drained: Drained{Moved: map[string]int{"idle": 12, "new": 2}, SoftDrained: map[string]int{"tls": 3},
			Finished: map[string]int{"http1": 4}, Cut: map[string]int{"deadline": 1}},
		LastDeploy: &Verdict{Action: ActionReload, Reason: "worker exited", Generation: 3, Stderr: "x", TookMS: 7, Coalesced: true},
	}
}

func TestEveryFieldHasASnakeCaseName(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !name.MatchString(tag) {
				t.Errorf("%v.%s has the JSON name %q", typ, f.Name, tag)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Status]())
	walk(reflect.TypeFor[ScaleRequest]())
	walk(reflect.TypeFor[StopRequest]())
}

func TestSampleKeepsTheLedgersPromise(t *testing.T) {
	l := sample().Generations[0].Ledger
	if sum := l.Acknowledged + l.Pending + l.Redispatched + l.RefusedTotal(); sum != l.Accepted {
		t.Errorf("have %d accepted, %d accounted for", l.Accepted, sum)
	}
}
