package movable

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// choices decide what a generated conversation is. When they run out, it is
// always the first.
type choices struct{ left []byte }

func (c *choices) of(n int) int {
	if len(c.left) == 0 {
		return 0
	}
	b := c.left[0]
	c.left = c.left[1:]
	return int(b) % n
}

func pick[T any](c *choices, all ...T) T { return all[c.of(len(all))] }

// features are what generated conversations must have between them.
type features map[string]int

// generated is a conversation with the places at which a request ends, and
// nothing of the next has been said: there and nowhere else it can move.
type generated struct {
	say  string
	ends []int
	has  features
}

func generate(c *choices) generated {
	g := generated{ends: []int{0}, has: features{}}
	for n := 1 + c.of(5); n > 0; n-- {
		garbage := pick(c, "", "", "", "", "", "\r\n", "\n", "\r\n\r\n", "G", "\x00\xff", "what is this\r\n\r\n", string(c.take(3)))
		if garbage != "" && g.say != "" {
			g.say += garbage
			g.has["garbage"]++
		}
		g.say += g.message(c)
		g.ends = append(g.ends, len(g.say))
	}
	if n := len(g.ends) - 2; n > 0 {
		g.has["pipelining"] += n
	}
	return g
}

func (c *choices) take(n int) []byte {
	b := make([]byte, 0, n)
	for range n {
		b = append(b, byte(c.of(256)))
	}
	return b
}

// sizes of bodies lie around those of net/http's buffers.
var sizes = []int{0, 1, 2, 3, 4, 5, 17, 300, 2047, 2048, 4095, 4096, 4097, 9000}

func (g *generated) message(c *choices) string {
	method := pick(c, "GET", "POST", "HEAD", "PUT", "POST", "DELETE")
	path := pick(c, "/a", "/b", "/204", "/304", "/big", "/stream", "/unread")
	version := pick(c, "1.1", "1.1", "1.1", "1.0 keep-alive", "1.0")
	framing := pick(c, "", "length", "chunks", "trailers")
	if method != "GET" && method != "HEAD" && c.of(2) == 0 {
		framing = pick(c, "length", "chunks", "trailers")
	}
	size := pick(c, sizes...)
	body := strings.Repeat("b", size)
	g.has[method]++
	g.has[path]++
	g.has["HTTP/"+version]++
	var b strings.Builder
	end := pick(c, "\r\n", "\r\n", "\r\n", "\n")
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+end, args...) }
	number, keepAlive, _ := strings.Cut(version, " ")
	line("%s %s HTTP/%s", method, path, number)
	line("Host: x")
	if keepAlive != "" {
		line("Connection: keep-alive")
	}
	if number == "1.0" && framing != "" {
		framing = "length"
	}
	if c.of(24) == 1 {
		line("Connection: close")
		g.has["close"]++
	}
	if filler := pick(c, 0, 0, 0, 1, 100, 3000, 4096); filler > 0 {
		line("X: %s", strings.Repeat("x", filler))
	}
	if framing != "" && number == "1.1" && c.of(4) == 1 {
		line("Expect: 100-continue")
		g.has["100-continue"]++
	}
	g.has["body "+framing]++
	switch framing {
	case "length":
		line("Content-Length: %d", size)
		line("")
		b.WriteString(body)
	case "chunks", "trailers":
		line("Transfer-Encoding: chunked")
		if framing == "trailers" {
			line("Trailer: T")
		}
		line("")
		for len(body) > 0 {
			n := min(len(body), pick(c, 1, 2, 100, 4096, 5000, 1000))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		b.WriteString("0\r\n")
		if framing == "trailers" {
			b.WriteString("T: v\r\n")
		}
		b.WriteString("\r\n")
	default:
		line("")
	}
	return b.String()
}

// cuts are all ends, the bytes around them, and some anywhere.
func (g generated) cuts(c *choices) []int {
	cuts := slices.Clone(g.ends)
	for _, end := range g.ends {
		for _, near := range []int{-2, -1, 1, 2, 3, 4, 5} {
			if at := end + near; c.of(3) == 0 && at > 0 && at < len(g.say) {
				cuts = append(cuts, at)
			}
		}
	}
	for range 6 {
		cuts = append(cuts, (c.of(256)<<8+c.of(256))%len(g.say))
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// requireMovedAtEnds requires that the connection moved at the ends of requests
// where it was open, and nowhere else.
func (g generated) requireMovedAtEnds(t testing.TB, cuts []int, moved, still course) {
	t.Helper()
	want := slices.DeleteFunc(slices.Clone(still.open), func(at int) bool { return !slices.Contains(g.ends, at) })
	if !slices.Equal(moved.moved, want) {
		t.Fatalf("conversation %q, cut at %v: moved at %v, want %v", g.say, cuts, moved.moved, want)
	}
}

// try compares a generated conversation with itself under moves, with bytes that
// come at the moment of each and without. It returns how many moves there were.
func (g generated) try(t testing.TB, all []*server, c *choices) (moves, rushes int) {
	t.Helper()
	cuts := g.cuts(c)
	if len(g.say) < 120 {
		cuts = everyByte(g.say)
	}
	moved, still := play{say: g.say, cuts: cuts}.compare(t, all)
	g.requireMovedAtEnds(t, cuts, moved, still)
	moves = len(moved.moved)
	// The end of a request comes together with bytes of the next.
	cuts = slices.DeleteFunc(g.cuts(c), func(at int) bool { return slices.Contains(g.ends, at) })
	beyond, still := play{say: g.say, cuts: cuts}.compare(t, all)
	g.requireMovedAtEnds(t, cuts, beyond, still)
	rush := map[int]int{}
	for _, end := range g.ends {
		rush[end] = pick(c, 1, 2, 3, 4, 5, 16, 60, 500, 4095, 4096)
	}
	p := play{say: g.say, cuts: g.ends, rush: rush}
	moved, _ = p.compare(t, all)
	return moves, len(moved.moved)
}

// TestGeneratedConversations: thousands, with a move wherever there can be one.
func TestGeneratedConversations(t *testing.T) {
	const shards, each = 2, 1200
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			all := servers(t)
			random := rand.New(rand.NewPCG(2, uint64(shard)))
			has := features{}
			moves, rushes, ends := 0, 0, 0
			for range each {
				c := &choices{left: make([]byte, 200)}
				for i := range c.left {
					c.left[i] = byte(random.Uint32())
				}
				g := generate(c)
				n, r := g.try(t, all, c)
				moves, rushes, ends = moves+n, rushes+r, ends+len(g.ends)
				for what, n := range g.has {
					has[what] += n
				}
			}
			t.Logf("%d conversations: %d moves at %d ends of requests, and %d with bytes under way; %v", each, moves, ends, rushes, has)
			if moves < each*2 || rushes < each*3/2 {
				t.Errorf("only %d and %d moves", moves, rushes)
			}
			for _, what := range []string{
				"GET", "HEAD", "POST", "PUT", "DELETE", "/204", "/304", "/big", "/stream", "/unread", "garbage", "pipelining", "close",
				"HTTP/1.1", "HTTP/1.0 keep-alive", "HTTP/1.0", "body ", "body length", "body chunks", "body trailers", "100-continue",
			} {
				if has[what] < 20 {
					t.Errorf("%s: only %d times", what, has[what])
				}
			}
		})
	}
}

// TestBytesRushAtEveryByte: of the next request any number of bytes can come at
// the moment of the move.
func TestBytesRushAtEveryByte(t *testing.T) {
	t.Parallel()
	all := servers(t)
	moves := 0
	for i, first := range messages[:13] {
		for j, second := range messages[:13] {
			if (i+j)%3 > 0 || len(first)+len(second) > 500 {
				continue
			}
			for n := 1; n <= len(second); n++ {
				moved, _ := play{say: first + second, cuts: []int{len(first)}, rush: map[int]int{len(first): n}}.compare(t, all)
				moves += len(moved.moved)
			}
		}
	}
	t.Logf("%d moves", moves)
	if moves < 3000 {
		t.Errorf("only %d moves", moves)
	}
}

func FuzzConversation(f *testing.F) {
	f.Add([]byte{0, 2, 19, 0}, []byte("G"))
	f.Add([]byte("a conversation as the bytes of this text have it"), []byte("\r\n"))
	f.Add([]byte{4, 0, 1, 0, 0, 1, 11, 0, 5, 1, 1, 3, 2, 12, 0, 0, 9}, []byte{})
	all := servers(f)
	f.Fuzz(func(t *testing.T, chosen, rest []byte) {
		c := &choices{left: chosen[:min(len(chosen), 300)]}
		g := generate(c)
		g.try(t, all, c)
		cuts := g.cuts(c)
		play{say: g.say + string(rest[:min(len(rest), 200)]), cuts: cuts}.compare(t, all)
	})
}
