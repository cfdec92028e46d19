package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// maxErrors is how many failures a tally keeps, the first ones.
const maxErrors = 20

// A Report is what a run counted.
type Report struct {
	Started time.Time
	Took    time.Duration

	// Classes has a tally for each class that was planned.
	Classes map[Class]*Tally
}

// A Tally counts the requests of one class.
// Requests = OK + Lost + Unanswered.
type Tally struct {
	Clients  int
	Requests int
	OK       int // answered in full, as asked

	// Lost counts every request that was neither answered as asked nor
	// Unanswered. Refused and Timeouts are parts of it.
	Lost int

	Refused  int // of Lost: no connection could be made
	Timeouts int // of Lost: the request timeout passed

	// Unanswered counts pipelined requests behind an answer that said
	// Connection: close. RFC 9112, 9.6 allows a server to ignore them.
	Unanswered int

	// ServerClosedIdle counts kept connections that were found closed by the
	// server just before the next request was to be written. No request is
	// lost by it here, but one would have been with worse luck.
	ServerClosedIdle int

	Reconnects      int // connections of a client that keeps them, but for its first
	ConnectionClose int // answers that said Connection: close without being asked to

	// MaxLatency is the longest that a request that is OK took, from its first
	// byte written to its last byte read; for the first request of a
	// connection the connect is included.
	MaxLatency time.Duration

	Errors    []Failure      // the first 20, by time
	PerWorker map[string]int // OK requests by the X-Worker header of the answer
}

// A Stage is where a request failed.
type Stage string

const (
	StageConnect     Stage = "connect"
	StageWrite       Stage = "write"
	StageReadHeader  Stage = "read header"
	StageBadStatus   Stage = "bad status"
	StageReadBody    Stage = "read body"
	StageBadBody     Stage = "bad body"    // read in full, but not what was asked for
	StageUnsolicited Stage = "unsolicited" // bytes that no request had asked for
)

// A Failure is one loss: of one request, or of what was left of a pipeline.
type Failure struct {
	Time     time.Time
	Class    Class
	Stage    Stage
	Requests int    // how many requests were lost by it
	Nth      int    // which request on its connection it was, from 1 (of a pipeline the last); 0 without a connection
	Bytes    int    // read since the request was written
	Local    string // our address of the connection
	Worker   string // the X-Worker last seen on the connection
	Err      error
}

// String says it on one line.
func (f Failure) String() string {
	return fmt.Sprintf("%s %s: %s: %v (lost %d, request %d of connection %q, %d bytes read, worker %q)",
		f.Time.Format("15:04:05.000"), f.Class, f.Stage, f.Err, f.Requests, f.Nth, f.Local, f.Bytes, f.Worker)
}

func newTally() *Tally { return &Tally{PerWorker: make(map[string]int)} }

// lose counts the failure.
func (t *Tally) lose(f Failure) {
	t.Lost += f.Requests
	switch {
	case isTimeout(f.Err):
		t.Timeouts += f.Requests
	case f.Stage == StageConnect:
		t.Refused += f.Requests
	}
	if len(t.Errors) < maxErrors {
		t.Errors = append(t.Errors, f)
	}
}

// isTimeout tells our deadline from other failures. EAGAIN is no timeout though
// its Timeout method says so: it is how a unix socket says its queue is full.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() && !errors.Is(err, syscall.EAGAIN)
}

// add adds another tally of the same class.
func (t *Tally) add(o *Tally) {
	t.Clients += o.Clients
	t.Requests += o.Requests
	t.OK += o.OK
	t.Lost += o.Lost
	t.Refused += o.Refused
	t.Timeouts += o.Timeouts
	t.Unanswered += o.Unanswered
	t.ServerClosedIdle += o.ServerClosedIdle
	t.Reconnects += o.Reconnects
	t.ConnectionClose += o.ConnectionClose
	t.MaxLatency = max(t.MaxLatency, o.MaxLatency)
	for worker, n := range o.PerWorker {
		t.PerWorker[worker] += n
	}
	t.Errors = append(t.Errors, o.Errors...)
	slices.SortStableFunc(t.Errors, func(a, b Failure) int { return a.Time.Compare(b.Time) })
	t.Errors = t.Errors[:min(len(t.Errors), maxErrors)]
}

// Lost sums the lost requests of the given classes, of all without any.
func (r Report) Lost(classes ...Class) int {
	return r.sum(classes, func(t *Tally) int { return t.Lost })
}

// Requests sums the requests of the given classes, of all without any.
func (r Report) Requests(classes ...Class) int {
	return r.sum(classes, func(t *Tally) int { return t.Requests })
}

func (r Report) sum(classes []Class, of func(*Tally) int) int {
	if len(classes) == 0 {
		classes = Classes()
	}
	n := 0
	for _, c := range classes {
		if t := r.Classes[c]; t != nil {
			n += of(t)
		}
	}
	return n
}

// String is a table with a line for each class, the requests by worker, and
// the first failures.
func (r Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "class\tclients\trequests\tok\tlost\trefused\ttimeouts\tunanswered\tclosed idle\treconnects\tconn. close\tmax latency\tworkers\t")
	for _, c := range Classes() {
		t := r.Classes[c]
		if t == nil {
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t\n", c, t.Clients, t.Requests, t.OK,
			t.Lost, t.Refused, t.Timeouts, t.Unanswered, t.ServerClosedIdle, t.Reconnects, t.ConnectionClose,
			t.MaxLatency.Round(100*time.Microsecond), len(t.PerWorker))
	}
	w.Flush()

	total := make(map[string]int)
	for _, t := range r.Classes {
		for worker, n := range t.PerWorker {
			total[worker] += n
		}
	}
	fmt.Fprintf(&b, "%d requests in %s, %d lost\n", r.Requests(), r.Took.Round(time.Millisecond), r.Lost())
	if len(total) > 0 {
		b.WriteString("by worker:")
		for _, worker := range slices.SortedFunc(maps.Keys(total), cmp.Compare[string]) {
			fmt.Fprintf(&b, " %s=%d", worker, total[worker])
		}
		b.WriteByte('\n')
	}
	for _, c := range Classes() {
		if t := r.Classes[c]; t != nil {
			for _, f := range t.Errors {
				fmt.Fprintln(&b, f)
			}
		}
	}
	return b.String()
}
