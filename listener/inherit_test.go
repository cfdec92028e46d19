//go:build unix

package listener

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inherited makes what a child finds: a blocking file of c's socket.
func inherited(t *testing.T, c syscall.Conn) *os.File {
	t.Helper()
	fd, err := dup(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "inherited")
}

func TestFromFileKeepsTheQueue(t *testing.T) {
	for _, s := range sockets(t) {
		t.Run(s.Network, func(t *testing.T) {
			old := bind(t, s)
			for range 3 {
				dial(t, old)
			}
			f := inherited(t, old.File())
			if err := old.Release(); err != nil {
				t.Fatal(err)
			}
			l, err := FromFile(s, f)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("the file is still open: %v", err)
			}
			if got, want := l.Addr().String(), old.Addr().String(); got != want || l.Addr().Network() != s.Network {
				t.Errorf("address %s %s, want %s %s", l.Addr().Network(), got, s.Network, want)
			}
			dial(t, l)
			g := &testGate{room: 100}
			fds := make([]int, 8)
			for got := 0; got < 4; {
				n, err := l.Accept(fds, g)
				if err != nil {
					t.Fatal(err)
				}
				closeAll(t, fds[:n])
				got += n
			}
			// It was blocking: Accept must be interruptible all the same.
			_, done := acceptInBackground(t, l, fds)
			l.Pause()
			if r := await(t, done); r.err != os.ErrDeadlineExceeded {
				t.Errorf("got %v, want os.ErrDeadlineExceeded", r.err)
			}
		})
	}
}

func TestFromFileRefusesWhatDoesNotFit(t *testing.T) {
	tcp4, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp4.Close()
	client, err := net.Dial("tcp", tcp4.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	path := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	regular, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()

	api := Name("api")
	for _, tc := range []struct {
		name string
		spec Spec
		file any
		want string
	}{
		{"pipe", NewSpec("tcp", ":0", api), r, "expected a listening socket"},
		{"regular file", NewSpec("tcp", ":0", api), regular, "expected a listening socket"},
		{"udp", NewSpec("tcp", ":0", api), udp, "expected a tcp stream socket, got tcp4 of type 2"},
		{"connected", NewSpec("tcp", ":0", api), client, "one that does not listen"},
		{"tcp4 for tcp6", NewSpec("tcp6", ":0", api), tcp4, "expected a tcp6 stream socket, got tcp4"},
		{"tcp for unix", NewSpec("unix", "/a", api), tcp4, "expected a unix stream socket, got tcp4"},
		{"unix for tcp", NewSpec("tcp", ":0", api), local, "expected a tcp stream socket, got unix"},
		{"bad spec", NewSpec("tcp", "foo", api), tcp4, "expected host:port"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := inherited(t, tc.file.(syscall.Conn))
			l, err := FromFile(tc.spec, f)
			if err == nil {
				l.Close()
				t.Fatal("accepted")
			}
			if got := err.Error(); !strings.HasPrefix(got, `listener "api": `) || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q in it", got, tc.want)
			}
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("the file is still open: %v", err)
			}
		})
	}
	if _, err := FromFile(NewSpec("tcp", ":0"), nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no file: got %v", err)
	}
}

func TestFromFileOwnsNoOtherSocketFile(t *testing.T) {
	dir := t.TempDir()
	other := NewSpec("unix", filepath.Join(dir, "other"), Name("other"))
	bind(t, other)
	mine := bind(t, NewSpec("unix", filepath.Join(dir, "mine"), Name("mine")))
	l, err := FromFile(other, inherited(t, mine.File()))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(other.Address); err != nil {
		t.Errorf("removed a file that another socket is bound to: %v", err)
	}
}
