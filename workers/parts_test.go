//go:build unix

package workers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/baton-go/baton/internal/leaktest"
)

func TestOutputKeepsTheTailAndPassesAllOn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	o := newOutput(r, &all)
	long := strings.Repeat("0123456789", outputTail/5)
	_, _ = io.WriteString(w, "head "+long+" the reason\n")
	w.Close()
	<-o.done
	if all.Len() != len(long)+len("head  the reason\n") {
		t.Errorf("%d bytes passed on", all.Len())
	}
	if s := o.String(); len(s) > outputTail || !strings.HasSuffix(s, "9 the reason") {
		t.Errorf("tail of %d bytes ends %q", len(s), s[len(s)-20:])
	}
	if s := (*output)(nil).String(); s != "" {
		t.Errorf("no output is %q", s)
	}
}

func TestOutputKeepsWhatItCannotPassOn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	o := newOutput(r, blocked(release))
	_, _ = io.WriteString(w, "why")
	w.Close()
	for o.String() != "why" {
		select {
		case <-o.done:
			t.Fatalf("kept %q", o)
		default:
		}
	}
	close(release)
	<-o.done
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) { <-b; return 0, errors.New("nobody reads") }

func TestTraceIsReadFromItsHead(t *testing.T) {
	f, err := anonFile("trace", 0)
	if err != nil {
		t.Fatal(err)
	}
	if s := readTrace(f); s != "" {
		t.Errorf("empty trace %q", s)
	}
	_, _ = io.WriteString(f, "panic: why\n"+strings.Repeat("x", 2*outputTail))
	if s := readTrace(f); !strings.HasPrefix(s, "panic: why") || len(s) > outputTail {
		t.Errorf("trace of %d bytes: %.20q", len(s), s)
	}
	f.Close()
	if s := readTrace(f); s != "" {
		t.Errorf("closed trace %q", s)
	}
}

func TestCountersAreReadAndNotBelieved(t *testing.T) {
	f, err := anonFile("page", pageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set := func(open, total int64) {
		var b [16]byte
		binary.NativeEndian.PutUint64(b[:], uint64(open))
		binary.NativeEndian.PutUint64(b[8:], uint64(total))
		if _, err := f.WriteAt(b[:], 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range [][4]int64{
		{0, 0, 0, 0}, {3, 7, 3, 7}, {-1, -1 << 63, 0, 0}, {1<<63 - 1, 1 << 62, maxCounted, maxCounted},
	} {
		set(tt[0], tt[1])
		if open, total := readCounters(f); open != tt[2] || total != tt[3] {
			t.Errorf("%d, %d are read as %d, %d", tt[0], tt[1], open, total)
		}
	}
	if err := f.Truncate(pageSize / 2); err != nil {
		t.Fatal(err)
	}
	set(5, 5)
	if open, total := readCounters(f); open != 0 || total != 0 {
		t.Errorf("a truncated page is read as %d, %d", open, total)
	}
}

func TestWorkersEnvironment(t *testing.T) {
	m := marker{Nonce: "n", Generation: 2, Slot: 3, Argv0: "app"}
	got := workerEnv([]string{
		"PATH=/bin", "NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", "LISTEN_FDS=2", "LISTEN_PID=1",
		"LISTEN_PIDFDID=1", "LISTEN_FDNAMES=a", "TABLEFLIP_HAS_PARENT_7DIU3=yes", "_BATON_WORKER=x", "_BATON_ROLE=y",
		"LISTEN_ADDR=:80", "BATON_DISPATCH=hash", "WATCHDOG=dog", "X=_BATON_",
	}, m)
	last := got[len(got)-1]
	want := []string{"PATH=/bin", "LISTEN_ADDR=:80", "BATON_DISPATCH=hash", "WATCHDOG=dog", "X=_BATON_"}
	if !slices.Equal(got[:len(got)-1], want) {
		t.Errorf("%q, want %q", got, want)
	}
	back, err := parseMarker(strings.TrimPrefix(last, MarkerEnv+"="))
	if err != nil || back != m {
		t.Errorf("marker %+v, %v", back, err)
	}
}

func TestMarkerMustBeWhole(t *testing.T) {
	for _, s := range []string{
		"", "yes", "{}", `{"nonce":"n","generation":1}`, `{"nonce":"n","slot":1}`, `{"generation":1,"slot":1}`,
		`{"nonce":"n","generation":-1,"slot":1}`, `[1]`,
	} {
		if m, err := parseMarker(s); err == nil {
			t.Errorf("%q is %+v", s, m)
		}
	}
}

func TestReserveGivesWayAndComesBack(t *testing.T) {
	before := leaktest.OpenFiles()
	r := newReserve()
	if n := len(r.files); n != reservedFiles {
		t.Fatalf("%d in reserve", n)
	}
	inside := 0
	err := r.with(func() error {
		inside = len(r.files)
		return syscall.EMFILE
	})
	if !errors.Is(err, syscall.EMFILE) || inside != 0 || len(r.files) != reservedFiles {
		t.Errorf("%v; %d in reserve meanwhile, %d after", err, inside, len(r.files))
	}
	r.close()
	if err := r.with(func() error { return nil }); err != nil { // a spawn that ends after the pool
		t.Error(err)
	}
	for fd, target := range leaktest.Leaked(before) {
		t.Errorf("leaked %s: %s", fd, target)
	}
}

func TestNames(t *testing.T) {
	if s := fmt.Sprint(ID{7, 2}, WorkerIsDraining, GenerationIsServing); s != "7.2 draining serving" {
		t.Error(s)
	}
	err := error(&RefusedError{Generation: 3, Reason: "why", Err: io.EOF})
	if !errors.Is(err, io.EOF) || err.Error() != "generation 3 refused: why" {
		t.Error(err)
	}
}

func TestHandoverIsCheckedAndFilesAreClosed(t *testing.T) {
	worker := func(edit func(*childRecord)) []childRecord {
		c := childRecord{Slot: 1, PID: 2, State: WorkerServing}
		edit(&c)
		return []childRecord{c}
	}
	nothing := func(*childRecord) {}
	generation := func(s GenerationState, ws []childRecord) handover {
		return handover{Protocol: protocol, Generations: []generationRecord{{Number: 1, State: s, Protocol: protocol, Workers: ws}}}
	}
	good := generation(GenerationIsServing, worker(nothing))
	newer := good
	newer.Protocol = Versions{Newest: 4, Oldest: 3}
	other := generation(GenerationIsServing, worker(nothing))
	other.Generations[0].Protocol = Versions{Newest: 4, Oldest: 3}
	for _, tt := range []struct {
		name, want string
		data       []byte
		files      int
	}{
		{"good", "", encode(good), 1 + filesPerChild},
		{"no JSON", "handover:", []byte("{"), 3},
		{"newer", "protocol 3 to 4, this master speaks 1 to 2", encode(newer), 1 + filesPerChild},
		{"of others", "generation 1 speaks protocol 3 to 4, this master 1 to 2", encode(other), 1 + filesPerChild},
		{"a file too few", "5 files and has 4", encode(good), filesPerChild},
		{"a file too many", "5 files and has 6", encode(good), 2 + filesPerChild},
		{"a starting worker", "state 0", encode(generation(GenerationIsServing, worker(func(c *childRecord) { c.State = WorkerStarting }))), 5},
		{"no such state", "state 99", encode(generation(GenerationIsServing, worker(func(c *childRecord) { c.State = 99 }))), 5},
		{"no pid", "pid 0", encode(generation(GenerationIsServing, worker(func(c *childRecord) { c.PID = 0 }))), 5},
		{"all processes", "pid -1", encode(generation(GenerationIsServing, worker(func(c *childRecord) { c.PID = -1 }))), 5},
		{"slot 0", "worker 1.0", encode(generation(GenerationIsServing, worker(func(c *childRecord) { c.Slot = 0 }))), 5},
		{"a starting generation", "state 0", encode(generation(GenerationStarting, worker(nothing))), 5},
		{"a generation that is gone", "state 5", encode(generation(GenerationIsGone, worker(nothing))), 5},
		{"connections without files", "files", encode(generation(GenerationIsServing, worker(func(c *childRecord) {
			c.Unacked = []heldRecord{{ID: 1}}
		}))), 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var files []*os.File
			for range tt.files {
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f)
			}
			in, err := ParseHandover(tt.data, files)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				in.Close()
			} else if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			for i, f := range files {
				if err := f.Close(); !errors.Is(err, os.ErrClosed) {
					t.Errorf("file %d was left open", i)
				}
			}
		})
	}
}
