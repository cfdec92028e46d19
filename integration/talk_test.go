//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// talker is a client of a session of the test application, on one connection
// all the time.
type talker struct {
	t  *testing.T
	c  net.Conn
	in *bufio.Reader
	n  int // of the last answer
}

// spoken is an answer in a session.
type spoken struct {
	n                     int
	worker, version, text string
}

// sessionTime bounds what a client waits for: a deploy on a busy machine.
const sessionTime = 30 * time.Second

// talk begins a session at addr, a unix socket's path or host:port.
func talk(t *testing.T, addr string) *talker {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, waitTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &talker{t: t, c: c, in: bufio.NewReader(c)}
}

// talkHTTP begins one by way of HTTP, and says text in the same breath.
func talkHTTP(t *testing.T, addr, text string) *talker {
	t.Helper()
	k := talk(t, addr)
	k.write("GET /session HTTP/1.1\r\nHost: test\r\n\r\n" + text)
	for line := "-"; line != "\r\n"; {
		var err error
		_ = k.c.SetReadDeadline(time.Now().Add(sessionTime))
		if line, err = k.in.ReadString('\n'); err != nil {
			t.Fatalf("the answer to the hijacked request: %v", err)
		}
	}
	return k
}

func (k *talker) write(text string) {
	k.t.Helper()
	_ = k.c.SetWriteDeadline(time.Now().Add(sessionTime))
	if _, err := k.c.Write([]byte(text)); err != nil {
		k.t.Fatalf("after answer %d: %v", k.n, err)
	}
}

// read reads an answer and requires that it is the next.
func (k *talker) read() (a spoken, err error) {
	_ = k.c.SetReadDeadline(time.Now().Add(sessionTime))
	line, err := k.in.ReadString('\n')
	if err != nil {
		return a, fmt.Errorf("after answer %d: %w, having %q", k.n, err, line)
	}
	number, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	a.worker, rest, _ = strings.Cut(rest, " ")
	a.version, a.text, _ = strings.Cut(rest, " ")
	if _, err := fmt.Sscan(number, &a.n); err != nil || a.n != k.n+1 {
		return a, fmt.Errorf("answer %q after answer %d", line, k.n)
	}
	k.n++
	return a, nil
}

// say says a line and returns its answer.
func (k *talker) say(text string) spoken {
	k.t.Helper()
	k.write(text + "\n")
	a, err := k.read()
	if err != nil {
		k.t.Fatal(err)
	}
	return a
}

// handOff makes the worker hand the session off, and returns the answer of the
// next one to the line behind.
func (k *talker) handOff(unread, state int, behind string) spoken {
	k.t.Helper()
	k.write(fmt.Sprintf("handoff %d %d\n%s\n", unread, state, behind))
	k.n++ // nobody answers
	a, err := k.read()
	if err != nil {
		k.t.Fatal(err)
	}
	return a
}

// chat talks without a pause until the returned function is called, which ends
// the session: lines are under way in both directions, each in two parts, and
// every answer has to be the next. It returns how much each worker has answered.
func (k *talker) chat() (finish func() (workers map[string]int, err error)) {
	const ahead, end = 64, "end"
	stop, window := make(chan struct{}), make(chan struct{}, ahead)
	line := func(i int) string { return fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%200)) }
	go func(i int) {
		for {
			i++
			text := line(i) + "\n"
			select {
			case <-stop:
				text = end + "\n"
			case window <- struct{}{}:
			}
			cut := i % len(text)
			for _, part := range []string{text[:cut], text[cut:]} {
				_ = k.c.SetWriteDeadline(time.Now().Add(sessionTime))
				if _, err := k.c.Write([]byte(part)); err != nil {
					return // the reader sees it, too
				}
			}
			if text == end+"\n" {
				return
			}
		}
	}(k.n)
	seen := map[string]int{}
	done := make(chan error, 1)
	go func() {
		for {
			a, err := k.read()
			if err == nil && a.text != end && a.text != line(a.n) {
				err = fmt.Errorf("answer %d is %q, want %q", a.n, a.text, line(a.n))
			}
			if err != nil || a.text == end {
				done <- err
				return
			}
			seen[a.worker]++
			<-window
		}
	}()
	return func() (map[string]int, error) {
		close(stop)
		err := <-done
		_ = k.c.Close()
		return seen, err
	}
}
