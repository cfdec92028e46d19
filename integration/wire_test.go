//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// What a client sees, byte for byte, when there are deploys in the middle of
// what it says.

// wire is a client's connection.
type wire struct {
	s     *service
	c     net.Conn
	got   []byte        // all that came
	since int           // where the last hear ended
	pace  time.Duration // between the pieces of an upload
	quiet bool          // nothing is deployed: this is how it should be
}

func (w *wire) say(text string) {
	w.s.t.Helper()
	if _, err := w.c.Write([]byte(text)); err != nil {
		w.s.t.Fatalf("after %q: %v", w.got, err)
	}
}

// hear reads on until what came since the last time ends with this.
func (w *wire) hear(end string) {
	w.s.t.Helper()
	_ = w.c.SetReadDeadline(time.Now().Add(waitTime))
	var b [4096]byte
	for !bytes.HasSuffix(w.got[w.since:], []byte(end)) {
		n, err := w.c.Read(b[:])
		w.got = append(w.got, b[:n]...)
		if err != nil {
			w.s.t.Fatalf("got %q, then %v; want it to end with %q", w.got[w.since:], err, end)
		}
	}
	w.since = len(w.got)
}

// end asks for the end, so that all there is has come.
func (w *wire) end() {
	w.s.t.Helper()
	// The server may have ended it by itself, after nonsense.
	_, _ = w.c.Write([]byte("GET /n?i=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	_ = w.c.SetReadDeadline(time.Now().Add(waitTime))
	var b [4096]byte
	for {
		n, err := w.c.Read(b[:])
		if w.got = append(w.got, b[:n]...); err != nil {
			break
		}
	}
}

// reload brings up another generation. It does not wait for the old one.
func (w *wire) reload() {
	w.s.t.Helper()
	if !w.quiet {
		requireTaken(w.s.t, w.s.reload())
	}
}

// moves reloads, and waits until the connection has moved.
func (w *wire) moves() {
	w.s.t.Helper()
	w.reload()
	w.settles()
}

// settles waits until only the serving generation is left.
func (w *wire) settles() {
	w.s.t.Helper()
	if !w.quiet {
		w.s.waitStatus("the old generations are gone", oneGeneration)
	}
}

// underWay says something while the connection has left the one worker and not
// come to the other.
func (w *wire) underWay(text string) {
	w.s.t.Helper()
	if w.quiet {
		w.say(text)
		return
	}
	old, next := reloadStopped(w.s, w.s.cfg)
	signalAll(w.s.t, next, syscall.SIGSTOP)
	signalAll(w.s.t, old, syscall.SIGCONT)
	w.s.waitStatus("the connection is under way", func(st control.Status) bool { return unacked(serving(st)) == 1 })
	w.say(text)
	signalAll(w.s.t, next, syscall.SIGCONT)
	w.settles()
}

// upload sends a body in 16 pieces, with three reloads.
func (w *wire) upload(piece func(i int) string) {
	w.s.t.Helper()
	for i := range 16 {
		w.say(piece(i))
		if i%4 == 3 && i < 15 {
			w.reload()
		}
		if !w.quiet {
			<-time.After(w.pace)
		}
	}
}

var (
	moment    = regexp.MustCompile(`Date: [^\r]*\r\n`)
	answerer  = regexp.MustCompile(`X-Worker: (\d+)\.(\d+)\r\n`)
	number    = func(i int) string { return fmt.Sprintf("GET /n?i=%d HTTP/1.1\r\nHost: x\r\n\r\n", i) }
	number10  = func(i int) string { return fmt.Sprintf("GET /n?i=%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", i) }
	expecting = "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	goOn      = "HTTP/1.1 100 Continue\r\n\r\n"
	kib4      = strings.Repeat("0123456789abcdef", 256)
)

// conversations are what is said, and which generations have to answer.
var conversations = []struct {
	name string
	talk func(w *wire)
	by   string
}{
	{"an upload", func(w *wire) {
		w.say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n")
		w.upload(func(int) string { return kib4 })
		w.hear(strings.Repeat(kib4, 16))
		w.settles()
	}, "1 4"},
	{"an upload in chunks", func(w *wire) {
		w.say("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n")
		w.upload(func(i int) string {
			chunk := "1000\r\n" + kib4 + "\r\n"
			if i == 15 {
				chunk += "0\r\nT: v\r\n\r\n"
			}
			return chunk
		})
		w.hear(strings.Repeat(kib4, 16))
		w.settles()
	}, "1 4"},
	{"100-continue, the body after a reload", func(w *wire) {
		w.say(fmt.Sprintf(expecting, "echo"))
		w.hear(goOn)
		w.reload()
		w.say("he")
		w.reload()
		w.say("llo")
		w.hear("hello")
		w.settles()
	}, "1 3"},
	{"100-continue, the handler asks after a reload", func(w *wire) {
		w.say(fmt.Sprintf(expecting, "late"))
		w.reload()
		w.hear(goOn)
		w.say("hello")
		w.hear(`"hello" <nil> map[]`)
		w.settles()
	}, "1 2"},
	{"100-continue on a connection that has moved", func(w *wire) {
		w.say(number(1))
		w.hear("\r\n1")
		w.moves()
		w.say(fmt.Sprintf(expecting, "echo"))
		w.hear(goOn)
		w.say("hello")
		w.hear("hello")
		w.moves()
	}, "1 2 3"},
	{"100-continue, the head comes while the connection moves", func(w *wire) {
		w.say(number(1))
		w.hear("\r\n1")
		w.underWay(fmt.Sprintf(expecting, "echo"))
		w.hear(goOn)
		w.reload()
		w.say("hello")
		w.hear("hello")
		w.settles()
	}, "1 2 3"},
	{"100-continue, half of the head comes while the connection moves", func(w *wire) {
		head := fmt.Sprintf(expecting, "late")
		w.say(number(1))
		w.hear("\r\n1")
		w.underWay(head[:20])
		w.reload()
		w.say(head[20:])
		w.hear(goOn)
		w.say("hello")
		w.hear(`"hello" <nil> map[]`)
		w.settles()
	}, "1 2 3"},
	{"HTTP/1.0", func(w *wire) {
		for i := range 3 {
			w.say(number10(i))
			w.hear(fmt.Sprintf("\r\n%d", i))
			w.moves()
		}
		w.underWay(number10(3)[:30])
		w.say(number10(3)[30:])
		w.hear("\r\n3")
	}, "1 2 3 5 5"},
	{"pipelined, split in a request line", func(w *wire) { pipelined(w, 8) }, "1 1 1 1 2"},
	{"pipelined, split after a byte", func(w *wire) { pipelined(w, 1) }, "1 1 1 1 2"},
	{"pipelined, split after a line", func(w *wire) { pipelined(w, strings.Index(number(2), "\n")+1) }, "1 1 1 1 2"},
	{"pipelined, split between requests", func(w *wire) { pipelined(w, 0) }, "1 1 2 2 2"},
	{"pipelined, while the connection moves", func(w *wire) {
		w.say(number(0))
		w.hear("\r\n0")
		w.underWay(number(1) + number(2) + number(3)[:9])
		w.hear("\r\n2")
		w.reload()
		w.say(number(3)[9:] + number(4))
		w.hear("\r\n4")
		w.settles()
	}, "1 2 2 2 2 3"},
	{"empty lines after a POST, while the connection moves", func(w *wire) {
		w.say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
		w.hear("hello")
		w.underWay("\r\n" + number(1))
		w.hear("\r\n1")
	}, "1 2 2"},
	{"nonsense while the connection moves", func(w *wire) {
		w.say(number(0))
		w.hear("\r\n0")
		w.underWay("what is this\r\n\r\n")
		w.hear("400 Bad Request")
	}, "1"},
}

// pipelined sends two requests and a part of a third, then the rest and a
// fourth, with a reload between.
func pipelined(w *wire, part int) {
	w.s.t.Helper()
	w.say(number(0) + number(1) + number(2)[:part])
	w.hear("\r\n1")
	w.reload()
	if part == 0 {
		w.settles()
	}
	w.say(number(2)[part:] + number(3))
	w.hear("\r\n3")
	w.settles()
}

func TestDeploysChangeNoByteOfWhatAClientSees(t *testing.T) {
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait, mostly
			s := newService(t, appConfig{Version: "v1", Workers: 1})
			talk := func(quiet bool) string {
				conn, err := net.DialTimeout("tcp", s.addr, dialTime)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				w := &wire{s: s, c: conn, quiet: quiet, pace: 5 * time.Second / 16}
				c.talk(w)
				w.end()
				return string(w.got)
			}
			plain := func(s string) string {
				return answerer.ReplaceAllString(moment.ReplaceAllString(s, "Date: now\r\n"), "X-Worker: some\r\n")
			}
			want := talk(true)
			got := talk(false)
			if plain(got) != plain(want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			var by []string
			for _, m := range answerer.FindAllStringSubmatch(got, -1) {
				by = append(by, m[1])
			}
			if !slices.Equal(by, strings.Fields(c.by)) {
				t.Errorf("generations %v have answered, want %s", by, c.by)
			}
			requireSettled(s)
		})
	}
}
