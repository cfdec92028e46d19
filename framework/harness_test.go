package framework

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baton-go/baton/listener"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

// service is a single process that runs inside the test.
type service struct {
	t    *testing.T
	logs *logBuffer
	stop context.CancelFunc // begins the stop

	addrs chan string
	done  chan error
	once  sync.Once
	err   error
}

// launch runs it on a listener "default" of its own, and on those of opts.
func launch(t *testing.T, run func(...Option) error, opts ...Option) *service {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &service{t: t, logs: newLogBuffer(), stop: stop, addrs: make(chan string, 8), done: make(chan error, 1)}
	all := append([]Option{
		SingleProcess(), StopOn(ctx), Logger(s.logs.logger()), IdleGrace(300 * time.Millisecond), StopTimeout(patience),
		Listen("tcp", "127.0.0.1:0", listener.Name("default")),
		OnListen(func(_ string, a net.Addr) { s.addrs <- a.String() }),
	}, opts...)
	go func() { s.done <- run(all...) }()
	t.Cleanup(func() {
		stop()
		_ = s.wait()
		if t.Failed() {
			t.Logf("its log:\n%s", s.logs)
		}
	})
	return s
}

// handler makes launch's run function of a handler.
func handler(h http.HandlerFunc) func(...Option) error {
	return func(opts ...Option) error { return Run(h, opts...) }
}

func (s *service) addr() string {
	s.t.Helper()
	select {
	case a := <-s.addrs:
		return a
	case <-time.After(patience):
		s.t.Fatal("no address")
		return ""
	}
}

// wait returns what Run returned.
func (s *service) wait() error {
	s.t.Helper()
	s.once.Do(func() {
		select {
		case s.err = <-s.done:
		case <-time.After(patience + 5*time.Second):
			s.err = errors.New("Run did not return")
			s.t.Errorf("%v", s.err)
		}
	})
	return s.err
}

// running fails the test if Run has returned.
func (s *service) running() {
	s.t.Helper()
	select {
	case err := <-s.done:
		s.done <- err
		s.t.Fatalf("Run has returned: %v", err)
	default:
	}
}

// logBuffer collects lines without the time, and can be waited on.
type logBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed and replaced at each write
}

func newLogBuffer() *logBuffer { return &logBuffer{more: make(chan struct{})} }

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
}

func (b *logBuffer) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for {
		b.mu.Lock()
		found, more := strings.Contains(b.buf.String(), text), b.more
		b.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%q was not logged:\n%s", text, b)
		}
	}
}

// client is a connection on which a test writes as it likes.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{t: t, Conn: c, r: bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

const get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

// answer reads a response and its body.
func (c *client) answer() (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("body: %v", err)
	}
	return resp, string(body)
}

// ended waits for the end of the connection.
func (c *client) ended() {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("the connection does not end")
	}
	if len(b) > 0 {
		c.t.Fatalf("got %q, expected the end of the connection", b)
	}
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: it does not happen", what)
	}
}
