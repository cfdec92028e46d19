//go:build unix

package workers

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCountersFollowConnections(t *testing.T) {
	m, w := newMaster(t, "tcp")
	m.tcp(1)
	m.tcp(2)
	l := w.Listeners()[0]
	a, b := mustAccept(t, l), mustAccept(t, l)
	if w.Open() != 2 || w.Taken() != 2 {
		t.Errorf("open %d, taken %d", w.Open(), w.Taken())
	}
	a.Close()
	<-w.Ended()
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if w.Open() != 1 || w.Taken() != 2 {
		t.Errorf("open %d, taken %d", w.Open(), w.Taken())
	}
	b.Close()
	<-w.Ended()
	if w.Open() != 0 {
		t.Errorf("open %d", w.Open())
	}
}

// unixPair returns a client and the descriptor of the accepted connection.
func unixPair(t testing.TB) (*net.UnixConn, int) {
	t.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	_ = client.SetDeadline(time.Now().Add(patience))
	s, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	return client, detach(t, s)
}

func TestClientSeesTheEndThoughTheMasterHoldsACopy(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			m, w := newMaster(t, network)
			var client net.Conn
			var fd int
			if network == "tcp" {
				client, fd = tcpPair(t)
			} else {
				client, fd = unixPair(t)
			}
			m.send(0, map[uint64]int{1: fd})
			c := mustAccept(t, w.Listeners()[0])
			if _, err := io.WriteString(c, "bye"); err != nil {
				t.Fatal(err)
			}
			c.Close()
			b, err := io.ReadAll(client)
			if err != nil || string(b) != "bye" {
				t.Errorf("client read %q, %v", b, err)
			}
		})
	}
}

func TestLingerIsTheApplicationsChoice(t *testing.T) {
	m, w := newMaster(t, "tcp")
	client := m.tcp(1)
	c := mustAccept(t, w.Listeners()[0])
	m.wants(msgAck, 1)
	if err := c.(*tcpConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	// The last copy is the master's, and its close resets as asked for.
	unix.Close(m.fds[1])
	delete(m.fds, 1)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client: %v, want a reset", err)
	}
}

func TestConnectionHasWhatServersLookFor(t *testing.T) {
	m, w := newMaster(t, "tcp")
	client := m.tcp(1)
	c := mustAccept(t, w.Listeners()[0])
	if _, ok := c.(interface{ File() (*os.File, error) }); ok {
		t.Error("File would go past Close")
	}
	file := filepath.Join(t.TempDir(), "f")
	data := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := c.(io.ReaderFrom).ReadFrom(f)
		if err == nil {
			err = c.(interface{ CloseWrite() error }).CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("client read %d bytes of %d, %v", len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	// The other direction is still open.
	if _, err := io.WriteString(client, "answer"); err != nil {
		t.Fatal(err)
	}
	_ = client.CloseWrite()
	var b bytes.Buffer
	if n, err := c.(io.WriterTo).WriteTo(&b); err != nil || n != 6 || b.String() != "answer" {
		t.Errorf("WriteTo: %d, %v, %q", n, err, b.String())
	}
	if c.LocalAddr().String() != client.RemoteAddr().String() || c.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
	}
	tc := c.(*tcpConn)
	for name, err := range map[string]error{
		"SetNoDelay": tc.SetNoDelay(true), "SetKeepAlive": tc.SetKeepAlive(true),
		"SetKeepAlivePeriod": tc.SetKeepAlivePeriod(time.Minute),
		"SetKeepAliveConfig": tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}),
		"SetReadBuffer":      tc.SetReadBuffer(4096), "SetWriteBuffer": tc.SetWriteBuffer(4096),
		"SetWriteDeadline": tc.SetWriteDeadline(time.Now()),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tc.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a read after the end, and after its deadline")
	}
	raw, err := tc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(uintptr) {}); err != nil {
		t.Error(err)
	}
}

// Unread bytes of a connection that moved are read first by who does not ask for
// them, such as a server that knows nothing of moving.
func TestUnreadBytesAreReadFirst(t *testing.T) {
	m, w := newMaster(t, "tcp", "tcp")
	for i, ask := range []bool{false, true} {
		client, fd := tcpPair(t)
		if err := m.conn.Send(msgMoved, appendMoved(nil, uint64(i), 0, Moved{Unread: []byte("GE")}), []int{fd}); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		c := mustAccept(t, w.Listeners()[0])
		mustSay(t, client, "T /")
		if ask {
			m, ok := c.(interface{ Moved() (Moved, bool) }).Moved()
			if !ok || string(m.Unread) != "GE" {
				t.Errorf("moved %+v, %v", m, ok)
			}
			mustHear(t, c, "T /")
		} else {
			mustHear(t, c, "GET /")
		}
		c.Close()
	}
}
