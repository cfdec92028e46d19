package workers

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/dispatch"
)

// arrived waits until fd has n bytes to read, or the end.
func arrived(t *testing.T, fd, n int, fin bool) {
	t.Helper()
	buf := make([]byte, n+1)
	for {
		events := int16(unix.POLLIN)
		if fin {
			events = unix.POLLRDHUP
		}
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		if k, err := unix.Poll(p, int(patience.Milliseconds())); err == unix.EINTR {
			continue
		} else if err != nil || k == 0 {
			t.Fatalf("poll: %d, %v", k, err)
		}
		if k, _, _ := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT); k >= n {
			return
		}
	}
}

func TestProofThatNobodyHasRead(t *testing.T) {
	for _, tt := range []struct {
		name       string
		send       string
		fin        bool
		peek, read int
		want       bool
	}{
		{name: "fresh", want: true},
		{name: "sent, unread", send: "GET / HTTP/1.1\r\n", want: true},
		{name: "peeked", send: "GET /", peek: 3, want: true},
		{name: "one byte read", send: "GET /", read: 1},
		{name: "partly read", send: "GET /", read: 3},
		{name: "all read", send: "GET /", read: 5},
		{name: "FIN pending", fin: true, want: true},
		{name: "sent, unread, FIN pending", send: "GET /", fin: true, want: true},
		{name: "partly read, FIN pending", send: "GET /", fin: true, read: 1},
		{name: "all read, FIN pending", send: "GET /", fin: true, read: 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, fd := tcpPair(t)
			defer unix.Close(fd)
			if _, err := io.WriteString(client, tt.send); err != nil {
				t.Fatal(err)
			}
			if tt.fin {
				if err := client.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if tt.send != "" || tt.fin {
				arrived(t, fd, len(tt.send), tt.fin)
			}
			buf := make([]byte, 64)
			if tt.peek > 0 {
				if n, _, err := unix.Recvfrom(fd, buf[:tt.peek], unix.MSG_PEEK); n != tt.peek {
					t.Fatal(n, err)
				}
			}
			if tt.read > 0 {
				if n, err := unix.Read(fd, buf[:tt.read]); n != tt.read {
					t.Fatal(n, err)
				}
			}
			if got := consumed(fd) == 0; got != tt.want {
				t.Errorf("untouched = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestProofCannotTellOfOtherSockets(t *testing.T) {
	fd := socket(t)
	defer unix.Close(fd)
	if consumed(fd) != 0 {
		t.Error("a unix socket counts as touched")
	}
}

func TestConnectionReadByTheDeadIsNotGivenOn(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 2)
	a, b := fars[0], fars[1]
	b.w.stalled = true
	read, readFD := tcpPair(t)
	unread, unreadFD := tcpPair(t)
	d.Reserve(2)
	d.take([]int{readFD, unreadFD}, 0)
	a.recv()
	for _, c := range []io.Writer{read, unread} {
		if _, err := io.WriteString(c, "request"); err != nil {
			t.Fatal(err)
		}
	}
	arrived(t, a.fds[1], 7, false)
	arrived(t, a.fds[2], 7, false)
	if n, err := unix.Read(a.fds[1], make([]byte, 3)); n != 3 {
		t.Fatal(n, err)
	}
	a.die()
	d.stall(b.w, false)
	if n := d.abandon(a.w, 0); n != 1 {
		t.Errorf("%d requeued, want 1", n)
	}
	want(t, "the other got", b.recv(), []uint64{2})
	if n := d.serving.refused[refusedTouched]; n != 1 {
		t.Errorf("%d refused as read, want 1", n)
	}
	if _, err := read.Read(make([]byte, 1)); err == nil {
		t.Error("the client of half a request hears nothing")
	}
	buf := make([]byte, 16)
	if n, err := unix.Read(b.fds[2], buf); string(buf[:max(n, 0)]) != "request" {
		t.Errorf("the other reads %q, %v", buf[:max(n, 0)], err)
	}
	checkLedger(t, d.serving, 1)
}
