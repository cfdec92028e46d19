package movable

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// messages are what a client may say; a conversation is a sequence of them.
var messages = []string{
	"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
	"HEAD /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
	"POST /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nT: v\r\n\r\n",
	"PUT /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
	"POST /f HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
	"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nhide",
	"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nhide",
	"GET /g HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"GET /h HTTP/1.0\r\n\r\n",
	"GET /204 HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /304 HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /close HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /i HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	"GET /long HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("l", 3000) + "\r\n\r\n",
	"GET /j HTTP/1.1\nHost: x\n\n",
	"\r\n", "\n", "\r\n\r\n", "G", "GET / HTTP/1.1\r\n\r\n", "\x00\xff", "GET / HTTP/9.9\r\n\r\n",
}

// converse answers with all that it has got to see.
func converse(w http.ResponseWriter, r *http.Request) {
	w.Header()["Date"] = nil
	switch r.URL.Path {
	case "/unread":
		return
	case "/204", "/304":
		var code int
		_, _ = fmt.Sscan(r.URL.Path[1:], &code)
		w.WriteHeader(code)
		return
	case "/big":
		_, _ = w.Write(make([]byte, 10000))
		return
	case "/stream":
		for range 3 {
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
		}
		return
	case "/close":
		w.Header().Set("Connection", "close")
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s %d %q %v %v", r.Method, r.URL, r.Proto, r.ContentLength, body, err, r.Trailer)
}

// play is a conversation: what the client says, in the pieces that cuts make of
// it, each when net/http waits for more. At every cut the connection is moved to
// the next server, if it can be and move says so. rush is how many of the next
// bytes arrive at the moment of the move, by cut.
type play struct {
	say  string
	cuts []int
	move bool
	rush map[int]int
}

// course is what came of it.
type course struct {
	heard string // by the client
	moved []int  // the cuts at which the connection moved
	open  []int  // the cuts at which it was
}

// rushed is a connection on which bytes arrive at the moment of a pull.
type rushed struct {
	*memory
	bytes  string
	active bool // a whole header has been read, and not all that follows is done
}

func (r *rushed) SetReadDeadline(t time.Time) error {
	if !t.Equal(past) || r.bytes == "" {
		return r.memory.SetReadDeadline(t)
	}
	r.send(r.bytes)
	r.bytes = ""
	return nil
}

func (p play) run(t testing.TB, servers []*server) (c course) {
	t.Helper()
	m := newMemory()
	r := &rushed{memory: m}
	conn := Wrap(r)
	servers[0].serve(conn)
	rest := func() {
		// The background reader of a handler reads one byte, and begins before
		// the handler does.
		if !m.wait(func() bool {
			return m.closed || m.waiting && len(m.in) == 0 && (m.asked > 1 || !r.active)
		}) {
			t.Fatalf("stuck in %q: %+v", p.say, m)
		}
	}
	at := 0
	for _, cut := range append(p.cuts, len(p.say)) {
		if cut < at {
			continue // it has rushed ahead
		}
		m.send(p.say[at:cut])
		at = cut
		rest()
		if !m.isClosed() {
			c.open = append(c.open, cut)
		}
		if !p.move {
			continue
		}
		next := min(cut+p.rush[cut], len(p.say))
		r.bytes = p.say[cut:next]
		moved, ok := conn.Pull(patience)
		if r.bytes == "" {
			at = next // whoever reads them
		}
		r.bytes = ""
		if !ok {
			continue
		}
		c.moved = append(c.moved, cut)
		if got := string(moved.Unread); got != p.say[cut:next] {
			t.Fatalf("conversation %q moved at %d with %q, want %q", p.say, cut, got, p.say[cut:next])
		}
		to := servers[len(c.moved)%len(servers)]
		conn = Resume(moved, to.Server)
		to.serve(conn)
	}
	rest()
	c.heard = string(m.written())
	if m.isClosed() {
		c.heard += "EOF"
	}
	_ = conn.Close()
	return c
}

// compare plays it with moves and without, and returns how it went with them.
func (p play) compare(t testing.TB, all []*server) (moved, still course) {
	t.Helper()
	p.move = false
	still = p.run(t, all)
	p.move = true
	moved = p.run(t, all)
	if moved.heard != still.heard {
		t.Fatalf("conversation %q, cut at %v, moved at %v with %v\ngot  %q\nwant %q", p.say, p.cuts, moved.moved, p.rush, moved.heard, still.heard)
	}
	return moved, still
}

func servers(t testing.TB) []*server {
	var all []*server
	for range 3 {
		all = append(all, start(t, &http.Server{MaxHeaderBytes: 64 << 10}, converse))
	}
	return all
}

// compare plays a conversation with a move at every byte, and at each byte alone
// if it is to do so, and with none.
func compare(t testing.TB, all []*server, say string, alone bool) (moves int) {
	t.Helper()
	every := everyByte(say)
	cuts := [][]int{every}
	if alone && len(say) < 1000 {
		for _, cut := range every {
			cuts = append(cuts, []int{cut})
		}
	}
	for _, at := range cuts {
		moved, _ := play{say: say, cuts: at}.compare(t, all)
		moves += len(moved.moved)
	}
	return moves
}

func everyByte(say string) []int {
	every := make([]int, len(say))
	for i := range every {
		every[i] = i
	}
	return every
}

// TestClientSeesNoDifference: every pair of messages, and some longer ones.
func TestClientSeesNoDifference(t *testing.T) {
	t.Parallel()
	all := servers(t)
	moves := 0
	for i, first := range messages {
		for j, second := range messages {
			say := first + second
			if len(say) > 1000 && (i+j)%5 > 0 {
				continue
			}
			moves += compare(t, all, say, (i+j)%4 == 0)
		}
	}
	for i := range messages {
		var say strings.Builder
		for j := range 6 {
			say.WriteString(messages[(i*j+j*j)%13])
		}
		moves += compare(t, all, say.String(), true)
	}
	t.Logf("%d moves", moves)
	if moves < 1000 {
		t.Errorf("only %d moves", moves)
	}
}
