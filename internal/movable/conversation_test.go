package movable

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
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

// talk plays a conversation to servers, the client sending on from each cut
// when net/http waits for it, and tries there to move the connection to the
// next server. It returns what the client has read, and how often the
// connection moved.
func talk(t testing.TB, servers []*server, say string, cuts []int, move bool) (heard string, moves int) {
	t.Helper()
	m := newMemory()
	c := Wrap(m)
	servers[0].serve(c)
	rest := func() {
		// The background reader of a handler reads one byte, and begins before
		// the handler does.
		if !m.wait(func() bool {
			return m.closed || m.waiting && len(m.in) == 0 && m.asked > 1
		}) {
			t.Fatalf("stuck in %q: %+v", say, m)
		}
	}
	at := 0
	for _, cut := range append(cuts, len(say)) {
		m.send(say[at:cut])
		at = cut
		rest()
		if !move {
			continue
		}
		moved, ok := c.Pull(patience)
		if !ok {
			continue
		}
		moves++
		next := servers[moves%len(servers)]
		c = Resume(moved, next.Server)
		next.serve(c)
	}
	rest()
	heard = string(m.written())
	if m.isClosed() {
		heard += "EOF"
	}
	_ = c.Close()
	return heard, moves
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
	every := make([]int, 0, len(say)+1)
	for i := range len(say) + 1 {
		every = append(every, i)
	}
	cuts := [][]int{every}
	if alone && len(say) < 1000 {
		for _, cut := range every {
			cuts = append(cuts, []int{cut})
		}
	}
	for _, at := range cuts {
		want, _ := talk(t, all, say, at, false)
		got, n := talk(t, all, say, at, true)
		if moves += n; got != want {
			t.Fatalf("conversation %q, cut at %v, moved %d times\ngot  %q\nwant %q", say, at, n, got, want)
		}
	}
	return moves
}

// TestClientSeesNoDifference: every pair of messages, and some longer ones.
func TestClientSeesNoDifference(t *testing.T) {
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

func FuzzConversation(f *testing.F) {
	f.Add([]byte{0, 2, 19, 0}, []byte("G"))
	f.Add([]byte{3, 5, 6, 8}, []byte("\r\n"))
	f.Add([]byte{12, 13, 1}, []byte{})
	all := servers(f)
	f.Fuzz(func(t *testing.T, script, rest []byte) {
		var say strings.Builder
		for _, b := range script[:min(len(script), 6)] {
			say.WriteString(messages[int(b)%len(messages)])
		}
		say.Write(rest[:min(len(rest), 200)])
		compare(t, all, say.String(), true)
	})
}
