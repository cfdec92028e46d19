package systemd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the other end.
type manager struct {
	t *testing.T
	c *net.UnixConn
}

func listen(t *testing.T, name string) *manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &manager{t, c}
}

// hear returns the next message and its files.
func (m *manager) hear() (string, []*os.File) {
	m.t.Helper()
	_ = m.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := m.c.ReadMsgUnix(buf, oob)
	if err != nil {
		m.t.Fatal(err)
	}
	var files []*os.File
	msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, c := range msgs {
		fds, _ := unix.ParseUnixRights(&c)
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "sent")
			m.t.Cleanup(func() { f.Close() })
			files = append(files, f)
		}
	}
	return string(buf[:n]), files
}

func sockets(t *testing.T) map[string]string {
	return map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@baton-test-" + strings.ReplaceAll(t.Name(), "/", "-") + "-" + time.Now().Format("150405.000000000"),
	}
}

func TestWhatIsSaidIsHeard(t *testing.T) {
	for kind, name := range sockets(t) {
		t.Run(kind, func(t *testing.T) {
			m, n := listen(t, name), NewNotifier(name)
			if err := n.Notify(Ready, Status("serving"), MainPID(7)); err != nil {
				t.Fatal(err)
			}
			if got, _ := m.hear(); got != "READY=1\nSTATUS=serving\nMAINPID=7" {
				t.Errorf("heard %q", got)
			}
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := n.Store("baton-x", f); err != nil {
				t.Fatal(err)
			}
			got, files := m.hear()
			if got != "FDSTORE=1\nFDNAME=baton-x" || len(files) != 1 {
				t.Fatalf("heard %q with %d files", got, len(files))
			}
			sent, _ := f.Stat()
			if came, err := files[0].Stat(); err != nil || !os.SameFile(sent, came) {
				t.Errorf("another file came (%v)", err)
			}
			if err := n.Remove("baton-x"); err != nil {
				t.Fatal(err)
			}
			if got, _ := m.hear(); got != "FDSTOREREMOVE=1\nFDNAME=baton-x" {
				t.Errorf("heard %q", got)
			}
		})
	}
}

func TestABarrierWaits(t *testing.T) {
	name := sockets(t)["path"]
	m, n := listen(t, name), NewNotifier(name)
	done := make(chan error, 1)
	go func() { done <- n.Barrier(time.Minute) }()
	got, files := m.hear()
	if got != "BARRIER=1" || len(files) != 1 {
		t.Fatalf("heard %q with %d files", got, len(files))
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	files[0].Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := n.Barrier(time.Millisecond); err == nil || !strings.Contains(err.Error(), "not answered within 1ms") {
		t.Errorf("nobody answered, but: %v", err)
	}
}

func TestNobodyToTell(t *testing.T) {
	for _, name := range []string{"", "/", "@", "relative", "vsock:2:1234"} {
		n := NewNotifier(name)
		if n != nil {
			t.Errorf("%q is no socket that could be told", name)
		}
		if err := errors.Join(n.Notify(Ready), n.Store("x", os.Stdin), n.Remove("x"), n.Barrier(time.Minute)); err != nil {
			t.Error(err)
		}
	}
	n := NewNotifier(filepath.Join(t.TempDir(), "none"))
	for what, err := range map[string]error{"notify": n.Notify(Ready), "store": n.Store("x", os.Stdin), "barrier": n.Barrier(time.Minute)} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want that there is no such socket", what, err)
		}
	}
}

func TestAManagerThatDoesNotReadIsGivenUp(t *testing.T) {
	name := sockets(t)["path"]
	listen(t, name)
	n := NewNotifier(name)
	for range 100_000 { // the kernel queues few datagrams
		if err := n.Notify(strings.Repeat("X=1\n", 200)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("the queue never filled")
}
