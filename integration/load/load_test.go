package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A script is what a server does with one connection. The connection is closed
// when it returns.
type script func(c *net.TCPConn, r *bufio.Reader, served func())

// scripted runs one class against a server of the script until served was
// called limit times, and returns the tally.
func scripted(t *testing.T, p Plan, limit int32, s script) *Tally {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l := listen(t, "tcp")
	var count atomic.Int32
	served := func() {
		if count.Add(1) == limit {
			cancel()
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				s(c.(*net.TCPConn), bufio.NewReader(c), served)
			})
		}
	})
	c := fast(l.Addr(), p)
	c.RequestTimeout = 2 * time.Second
	report := Run(ctx, c)
	l.Close()
	wg.Wait()

	tally := report.Classes[p.Class]
	if n := count.Load(); n < limit {
		t.Fatalf("the server served %d of %d in 10 s\n%s", n, limit, report)
	}
	check(t, report)
	return tally
}

// fast is a config whose requests all take milliseconds.
func fast(addr net.Addr, plans ...Plan) Config {
	return Config{
		Network: addr.Network(), Addr: addr.String(), Plans: plans,
		SlowFor: 50 * time.Millisecond, StreamFor: 100 * time.Millisecond, StreamEvery: 10 * time.Millisecond,
	}
}

func listen(t *testing.T, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// check holds every tally to what it promises.
func check(t *testing.T, r Report) {
	t.Helper()
	for class, tally := range r.Classes {
		if tally.Requests != tally.OK+tally.Lost+tally.Unanswered {
			t.Errorf("%s: requests are not the sum of ok, lost and unanswered", class)
		}
		if tally.Refused+tally.Timeouts > tally.Lost {
			t.Errorf("%s: more refused and timeouts than lost", class)
		}
		if (tally.Lost > 0) != (len(tally.Errors) > 0) || len(tally.Errors) > maxErrors {
			t.Errorf("%s: %d lost, %d errors", class, tally.Lost, len(tally.Errors))
		}
		if (tally.OK > 0) != (tally.MaxLatency > 0) {
			t.Errorf("%s: %d ok, latency %s", class, tally.OK, tally.MaxLatency)
		}
	}
	if t.Failed() {
		t.Logf("\n%s", r)
	}
}

// want compares the counters of losses; the failures must all be of the stages.
func want(t *testing.T, tally *Tally, expect Tally, stages ...Stage) {
	t.Helper()
	got := Tally{Lost: tally.Lost, Refused: tally.Refused, Timeouts: tally.Timeouts}
	if got.Lost != expect.Lost || got.Refused != expect.Refused || got.Timeouts != expect.Timeouts {
		t.Errorf("have %+v, want %+v", got, expect)
	}
	for _, f := range tally.Errors {
		if !slices.Contains(stages, f.Stage) {
			t.Errorf("want a failure at %q, have %s", stages, f)
		}
	}
}

// next reads a request and its body.
func next(r *bufio.Reader) (*http.Request, []byte, error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(req.Body)
	return req, body, err
}

// reply writes an answer of worker w.
func reply(c net.Conn, header string, body []byte) {
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Worker: w\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
}

func TestAServerThatBehavesLosesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()

			// The run ends when every route was asked a few times.
			var mu sync.Mutex
			asked := make(map[string]int)
			inner := Handler("w1")
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked[r.URL.Path]++
				enough := len(asked) == 5
				for _, n := range asked {
					enough = enough && n >= 8
				}
				mu.Unlock()
				if enough {
					cancel()
				}
				inner.ServeHTTP(w, r)
			})}
			l := listen(t, network)
			go s.Serve(l)
			defer s.Close()

			var plans []Plan
			for _, class := range Classes() {
				plans = append(plans, Plan{Class: class, Clients: 2})
			}
			report := Run(ctx, fast(l.Addr(), plans...))
			check(t, report)
			if n := report.Lost(); n != 0 {
				t.Errorf("%d lost", n)
			}
			for _, class := range Classes() {
				tally := report.Classes[class]
				if tally.OK == 0 || tally.PerWorker["w1"] != tally.OK || tally.Clients != 2 {
					t.Errorf("%s: want two clients and all that is ok by w1", class)
				}
				if tally.Unanswered+tally.ServerClosedIdle+tally.Reconnects+tally.ConnectionClose != 0 {
					t.Errorf("%s: the connections were not kept", class)
				}
			}
			if t.Failed() {
				t.Logf("\n%s", report)
			}
		})
	}
}

func TestARequestReadAndDroppedIsLost(t *testing.T) {
	t.Parallel()
	tally := scripted(t, Plan{KeepAlive, 2, 0}, 10, func(c *net.TCPConn, r *bufio.Reader, served func()) {
		next(r)
		served()
	})
	want(t, tally, Tally{Lost: tally.Requests}, StageReadHeader)
	if f := tally.Errors[0]; f.Bytes != 0 || f.Nth != 1 || f.Local == "" {
		t.Errorf("want the first request and no byte, have %s", f)
	}
	if tally.Reconnects == 0 {
		t.Error("the clients did not go on")
	}
}

func TestAnAnswerCutShortIsLost(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*net.TCPConn){
		"reset": func(c *net.TCPConn) { c.SetLinger(0) },
		"close": func(*net.TCPConn) {},
	} {
		for _, class := range []Class{PerConn, KeepAlive, Slow} {
			t.Run(name+" "+string(class), func(t *testing.T) {
				t.Parallel()
				tally := scripted(t, Plan{class, 2, 0}, 10, func(c *net.TCPConn, r *bufio.Reader, served func()) {
					next(r)
					io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Worker: w\r\nContent-Length: 100\r\n\r\n0123456789")
					end(c)
					served()
				})
				want(t, tally, Tally{Lost: tally.Requests}, StageReadBody)
				if f := tally.Errors[0]; f.Worker != "w" || f.Bytes < 10 || f.Err == nil {
					t.Errorf("want worker w and the bytes read, have %s", f)
				}
			})
		}
	}
}

func TestAWrongAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		class  Class
		stage  Stage
		answer func(c net.Conn, body []byte)
	}{
		{"other bytes", KeepAlive, StageBadBody, func(c net.Conn, body []byte) { body[len(body)/2] ^= 1; reply(c, "", body) }},
		{"fewer bytes", KeepAlive, StageBadBody, func(c net.Conn, body []byte) { reply(c, "", body[1:]) }},
		{"status", KeepAlive, StageBadStatus, func(c net.Conn, _ []byte) {
			io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
		}},
		{"no header", PerConn, StageReadHeader, func(c net.Conn, _ []byte) { io.WriteString(c, "hello\r\n\r\n") }},
		{"empty", PerConn, StageBadBody, func(c net.Conn, _ []byte) { reply(c, "", nil) }},
		{"no length", PerConn, StageBadBody, func(c net.Conn, _ []byte) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nok\n") }},
		{"bytes too many", KeepAlive, StageUnsolicited, func(c net.Conn, body []byte) {
			// One write, or the surplus may arrive after the answer was read.
			var all strings.Builder
			fmt.Fprintf(&all, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 400 Bad Request\r\n\r\n", len(body), body)
			io.WriteString(c, all.String())
		}},
		{"stream skips", Stream, StageBadBody, func(c net.Conn, _ []byte) { reply(c, "", []byte("chunk 1\nchunk 3\nend\n")) }},
		{"stream without end", Stream, StageBadBody, func(c net.Conn, _ []byte) { reply(c, "", []byte("chunk 1\n")) }},
		{"stream goes on", Stream, StageBadBody, func(c net.Conn, _ []byte) { reply(c, "", []byte("end\nchunk 1\n")) }},
		{"stream cut", Stream, StageReadBody, func(c net.Conn, _ []byte) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nchunk 1\n\r\n")
		}},
		{"stream cut after end", Stream, StageReadBody, func(c net.Conn, _ []byte) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nend\n\r\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tally := scripted(t, Plan{c.class, 1, 0}, 5, func(conn *net.TCPConn, r *bufio.Reader, served func()) {
				if _, body, err := next(r); err == nil {
					c.answer(conn, body)
					served()
				}
			})
			// A surplus that comes in a segment of its own is found before
			// the next request instead: then the one before it was OK.
			if c.stage == StageUnsolicited {
				want(t, tally, Tally{Lost: tally.Requests - tally.OK}, StageUnsolicited)
				return
			}
			want(t, tally, Tally{Lost: tally.Requests}, c.stage)
		})
	}
}

func TestConnectionCloseIsHonoured(t *testing.T) {
	t.Parallel()
	tally := scripted(t, Plan{KeepAlive, 2, 0}, 12, func(c *net.TCPConn, r *bufio.Reader, served func()) {
		for i := 1; ; i++ {
			_, body, err := next(r)
			if err != nil {
				return
			}
			header := ""
			if i == 2 {
				header = "Connection: close\r\n"
			}
			reply(c, header, body)
			served()
			if i > 2 {
				t.Error("a request came after Connection: close")
			}
		}
	})
	want(t, tally, Tally{})
	if tally.ConnectionClose == 0 || tally.Reconnects == 0 || tally.ServerClosedIdle != 0 {
		t.Errorf("want closes and connections made anew, have %+v", tally)
	}
	if tally.PerWorker["w"] != tally.OK {
		t.Errorf("want all by worker w, have %v", tally.PerWorker)
	}
}

func TestAServerThatStopsReadingIsATimeout(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp") // the kernel connects; nobody accepts
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	var plans []Plan
	for _, class := range Classes() {
		plans = append(plans, Plan{Class: class, Clients: 1})
	}
	c := fast(l.Addr(), plans...)
	c.RequestTimeout = 200 * time.Millisecond
	report := Run(ctx, c)
	check(t, report)
	for class, tally := range report.Classes {
		if tally.Requests == 0 {
			t.Errorf("%s: no request", class)
		}
		want(t, tally, Tally{Lost: tally.Requests, Timeouts: tally.Requests}, StageReadHeader)
	}
	if report.Took > 2*time.Second {
		t.Errorf("the requests in flight were waited for %s", report.Took)
	}
}

func TestNoListenerIsRefused(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		l := listen(t, network)
		addr := l.Addr()
		l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		report := Run(ctx, fast(addr, Plan{PerConn, 1, 0}, Plan{KeepAlive, 1, 0}))
		check(t, report)
		for class, tally := range report.Classes {
			if tally.Requests == 0 {
				t.Errorf("%s: no request", class)
			}
			want(t, tally, Tally{Lost: tally.Requests, Refused: tally.Requests}, StageConnect)
		}
	}
}

// numbers answers pipelined requests as far as edit lets it.
func numbers(edit func(c net.Conn, nth int, i string) bool) script {
	return func(c *net.TCPConn, r *bufio.Reader, served func()) {
		defer served()
		for nth := 1; ; nth++ {
			req, _, err := next(r)
			if err != nil || !edit(c, nth, req.FormValue("i")) {
				return
			}
		}
	}
}

func TestPipelinedBehindConnectionCloseIsUnanswered(t *testing.T) {
	t.Parallel()
	tally := scripted(t, Plan{Pipelined, 1, 0}, 3, numbers(func(c net.Conn, nth int, i string) bool {
		if nth == 6 {
			reply(c, "Connection: close\r\n", []byte(i))
			return false
		}
		reply(c, "", []byte(i))
		return true
	}))
	want(t, tally, Tally{})
	if n := tally.ConnectionClose; n == 0 || tally.Unanswered != 2*n {
		t.Errorf("want two unanswered for each close, have %d for %d", tally.Unanswered, n)
	}
}

func TestPipelinedCutIsLost(t *testing.T) {
	t.Parallel()
	tally := scripted(t, Plan{Pipelined, 1, 0}, 3, numbers(func(c net.Conn, nth int, i string) bool {
		reply(c, "", []byte(i))
		return nth < 2
	}))
	want(t, tally, Tally{Lost: tally.Requests / 2}, StageReadHeader)
	if f := tally.Errors[0]; f.Requests != 2 {
		t.Errorf("want two lost at once, have %s", f)
	}
}

func TestPipelinedOutOfOrderIsLost(t *testing.T) {
	t.Parallel()
	held := ""
	tally := scripted(t, Plan{Pipelined, 1, 0}, 3, numbers(func(c net.Conn, nth int, i string) bool {
		switch nth {
		case 2:
			held = i
		case 3:
			reply(c, "", []byte(i))
			reply(c, "", []byte(held))
		default:
			reply(c, "", []byte(i))
		}
		return nth < 4
	}))
	want(t, tally, Tally{Lost: tally.Requests * 3 / 4}, StageBadBody)
}

func TestARequestInFlightIsFinishedAtTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	inner := Handler("w1")
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel() // the run ends while this request is being served
		inner.ServeHTTP(w, r)
	})}
	l := listen(t, "tcp")
	go s.Serve(l)
	defer s.Close()
	report := Run(ctx, fast(l.Addr(), Plan{Slow, 1, 0}))
	check(t, report)
	if tally := report.Classes[Slow]; tally.Requests != 1 || tally.OK != 1 {
		t.Errorf("want one request and that answered\n%s", report)
	}
}

func TestUnknownClassPanics(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(r.(string), "load: ") {
			t.Errorf("have panic %v", r)
		}
	}()
	Run(t.Context(), Config{Plans: []Plan{{Class: "other", Clients: 1}}})
}

func TestReportSumsClasses(t *testing.T) {
	r := Report{Classes: map[Class]*Tally{
		PerConn: {Requests: 5, Lost: 2, Errors: []Failure{{Class: PerConn, Stage: StageWrite, Requests: 2, Err: errors.New("broken")}}},
		Idle:    {Requests: 4, Lost: 1, OK: 3, PerWorker: map[string]int{"2.1": 1, "1.1": 2}},
	}}
	if a, b, c := r.Lost(), r.Lost(Idle), r.Lost(Idle, Stream); a != 3 || b != 1 || c != 1 {
		t.Errorf("have %d, %d, %d lost, want 3, 1, 1", a, b, c)
	}
	s := r.String()
	for _, part := range []string{"max latency", "per-conn", "idle", "9 requests", "3 lost", "by worker: 1.1=2 2.1=1", "per-conn: write: broken"} {
		if !strings.Contains(s, part) {
			t.Errorf("%q is missing in\n%s", part, s)
		}
	}
}

func TestTallyKeepsTheFirstFailures(t *testing.T) {
	start := time.Now()
	sum := newTally()
	for client := range 3 {
		tally := newTally()
		for i := range 30 {
			tally.lose(Failure{Time: start.Add(time.Duration(3*i+client) * time.Second), Requests: 1, Err: io.EOF})
		}
		sum.add(tally)
	}
	if sum.Lost != 90 || len(sum.Errors) != maxErrors {
		t.Fatalf("have %d lost, %d errors", sum.Lost, len(sum.Errors))
	}
	for i, f := range sum.Errors {
		if want := start.Add(time.Duration(i) * time.Second); !f.Time.Equal(want) {
			t.Fatalf("error %d is of %s, want %s", i, f.Time, want)
		}
	}
}
