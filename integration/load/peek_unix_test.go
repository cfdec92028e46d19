//go:build unix

package load

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// readable waits until the poller says that the socket has something to read.
func readable(t *testing.T, k *conn) {
	t.Helper()
	k.SetDeadline(time.Now().Add(5 * time.Second))
	rc, err := k.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Read(func(fd uintptr) bool { return peek(int(fd)) != quiet }); err != nil {
		t.Fatal(err)
	}
}

func TestIdleTellsWhatTheServerDid(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(*net.TCPConn)
		want idleState
	}{
		"close": {func(c *net.TCPConn) { c.Close() }, closed},
		"reset": {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, closed},
		"write": {func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408\r\n\r\n"); c.Close() }, talking},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, "tcp")
			k, err := dial("tcp", l.Addr().String(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()

			k.SetDeadline(time.Now().Add(-time.Second)) // that of the last request
			if have := k.idle(); have != quiet {
				t.Errorf("untouched: have %d, want quiet", have)
			}
			c.act(server.(*net.TCPConn))
			readable(t, k)
			for range 2 { // a look takes nothing away
				if have := k.idle(); have != c.want {
					t.Errorf("have %d, want %d", have, c.want)
				}
			}
		})
	}
}

func TestIdleConnectionsClosedByTheServerAreNotLost(t *testing.T) {
	l := listen(t, "tcp")
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, body, err := next(bufio.NewReader(c)); err == nil {
				reply(c, "", body)
			}
			c.Close()
		}
	})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	config := fast(l.Addr())
	config.RequestTimeout = 5 * time.Second
	c := newClient(&config, Plan{Class: KeepAlive})
	c.keep(ctx, func(k *conn) bool {
		kept := c.echo(k)
		readable(t, k) // the close is here before the client looks for it
		if c.tally.Requests == 5 {
			cancel()
		}
		return kept
	})
	want(t, c.tally, Tally{})
	if have := *c.tally; have.OK != 5 || have.ServerClosedIdle != 4 || have.Reconnects != 4 || have.ConnectionClose != 0 {
		t.Errorf("want 5 ok and 4 closed in between, have %+v", have)
	}
}
