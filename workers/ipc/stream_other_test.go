//go:build unix && (!linux || baton_ipc_stream)

package ipc_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

// recvAllocs: unix.Recvmsg makes room for the sender's address, and a message
// takes two of them.
const recvAllocs = 2

func sendRaw(t *testing.T, f *os.File, p string, files ...int) {
	t.Helper()
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	if err := unix.Sendmsg(int(f.Fd()), []byte(p), oob, nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesArriveInPiecesAndGlued(t *testing.T) {
	c, f, err := pairFile(t)
	if err != nil {
		t.Fatal(err)
	}
	one := string(ipc.AppendFrame(nil, 1, 0, []byte("one")))
	two := string(ipc.AppendFrame(nil, 2, 2, []byte("two")))
	files := tempFiles(t, 2)
	sendRaw(t, f, one+one)
	sendRaw(t, f, two[:1], files...)
	wantFrame(t, c, 1, []byte("one"))
	wantFrame(t, c, 1, []byte("one"))
	for i := 1; i < len(two); i++ {
		// A deadline in the middle of a message loses nothing of it.
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Recv(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Recv after %d bytes = %v, want os.ErrDeadlineExceeded", i, err)
		}
		sendRaw(t, f, two[i:i+1])
	}
	sendRaw(t, f, one)
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	frame, err := c.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if frame.Type != 2 || string(frame.Payload) != "two" || len(frame.Files) != 2 {
		t.Fatalf("received %+v", frame)
	}
	for i, fd := range frame.Files {
		if got := contents(t, fd); got != string(rune('0'+i)) {
			t.Errorf("file %d holds %q", i, got)
		}
	}
	closeAll(frame.Files)
	wantFrame(t, c, 1, []byte("one"))
}

func TestWrongFileCountHarmsOnlyItsMessage(t *testing.T) {
	for name, announced := range map[string]int{"fewer": 3, "more": 1, "none": 0} {
		t.Run(name, func(t *testing.T) {
			c, f, err := pairFile(t)
			if err != nil {
				t.Fatal(err)
			}
			sendRaw(t, f, string(ipc.AppendFrame(nil, 1, announced, nil)), tempFiles(t, 2)...)
			sendRaw(t, f, string(ipc.AppendFrame(nil, 2, 0, nil)))
			before := len(openFiles())
			if frame, err := c.Recv(); !errors.Is(err, ipc.ErrProtocol) {
				t.Fatalf("Recv = %v, %v; want ErrProtocol", frame, err)
			}
			if after := len(openFiles()); after != before {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
			wantFrame(t, c, 2, nil)
		})
	}
}

func TestBadHeaderEndsTheStream(t *testing.T) {
	for name, b := range map[string]string{
		"version": "\x02\x02\x00\x00\x00\x00\x00\x00",
		"files":   "\x01\x02\xfe\x00\x00\x00\x00\x00",
		"length":  "\x01\x02\x00\x00\x01\x80\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			c, f, err := pairFile(t)
			if err != nil {
				t.Fatal(err)
			}
			sendRaw(t, f, b, tempFiles(t, 2)...)
			sendRaw(t, f, strings.Repeat("x", 100))
			before := len(openFiles())
			for range 2 {
				if frame, err := c.Recv(); !errors.Is(err, ipc.ErrProtocol) {
					t.Fatalf("Recv = %v, %v; want ErrProtocol", frame, err)
				}
			}
			if after := len(openFiles()); after != before {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
		})
	}
}

func TestHalfAMessageLeaksNothing(t *testing.T) {
	half := string(ipc.AppendFrame(nil, 1, 2, []byte("whole")))[:10]
	t.Run("peer dies", func(t *testing.T) {
		c, f, err := pairFile(t)
		if err != nil {
			t.Fatal(err)
		}
		sendRaw(t, f, half, tempFiles(t, 2)...)
		f.Close()
		before := len(openFiles())
		if _, err := c.Recv(); err != io.EOF {
			t.Fatalf("Recv = %v, want io.EOF", err)
		}
		if after := len(openFiles()); after != before {
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	})
	t.Run("we close", func(t *testing.T) {
		c, f, err := pairFile(t)
		if err != nil {
			t.Fatal(err)
		}
		sendRaw(t, f, half, tempFiles(t, 2)...)
		before := len(openFiles())
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Recv(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Recv = %v, want os.ErrDeadlineExceeded", err)
		}
		c.Close()
		if after := len(openFiles()); after != before-1 {
			t.Errorf("%d descriptors open, want %d", after, before-1)
		}
	})
}

// narrow returns a pair whose buffer takes long messages only by pieces.
func narrow(t *testing.T) (a, b *ipc.Conn) {
	t.Helper()
	a, b = pair(t)
	f, err := a.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// TestTailGoesOutByItself sends a message that goes in by half, and then sends
// nothing more.
func TestTailGoesOutByItself(t *testing.T) {
	a, b := narrow(t)
	payload := bytes.Repeat([]byte("t"), ipc.MaxPayload)
	for range 5 {
		n := fill(t, a, payload)
		if n == 0 {
			t.Fatal("not one message fits into an empty buffer")
		}
		// A write deadline holds up the tail only while it is in force.
		if err := a.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := a.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		for range n {
			wantFrame(t, b, 1, payload)
		}
	}
}

func TestConcurrentSendersDoNotMixTheirTails(t *testing.T) {
	a, b := narrow(t)
	crowd(t, a, b)
}

func TestCloseWithATailEndsTheFlush(t *testing.T) {
	a, b := narrow(t)
	fill(t, a, make([]byte, ipc.MaxPayload))
	a.Close() // goleak in TestMain says whether somebody still waits
	if _, err := b.Recv(); err != io.EOF {
		t.Errorf("Recv of half a message = %v, want io.EOF", err)
	}
}
