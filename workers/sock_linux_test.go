package workers

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// alone is a listener of a worker that has no master.
func alone(network string) *Listener {
	counts := &counters{open: new(atomic.Int64), total: new(atomic.Int64), ended: make(chan struct{}, 1)}
	return newListener(&Worker{counters: counts}, ListenerInfo{Network: network, Address: "127.0.0.1:80"}, 0)
}

// ours makes a connection of one of network, and returns its client, too.
func ours(t testing.TB, network string) (c net.Conn, client net.Conn) {
	t.Helper()
	var fd int
	if network == "unix" {
		client, fd = unixPair(t)
	} else {
		client, fd = tcpPair(t)
	}
	_ = client.SetDeadline(time.Time{})
	c, err := newConn(alone(network), incoming{fd: fd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, client
}

func TestConnectionsBehaveAsThoseOfPackageNet(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2 = ours(t, network)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

// both returns a connection of ours, one of package net, and how to end the
// clients of both.
func both(t *testing.T) (conns [2]net.Conn, clients [2]*net.TCPConn) {
	t.Helper()
	c, client := ours(t, "tcp")
	conns[0], clients[0] = c, client.(*net.TCPConn)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	other, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	clients[1] = other.(*net.TCPConn)
	if conns[1], err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conns[1].Close(); other.Close() })
	return conns, clients
}

func TestErrorsAreThoseOfPackageNet(t *testing.T) {
	type fault struct {
		name string
		do   func(c net.Conn, client *net.TCPConn) error
	}
	for _, f := range []fault{
		{"read after the deadline", func(c net.Conn, _ *net.TCPConn) error {
			_ = c.SetReadDeadline(time.Unix(1, 0))
			_, err := c.Read(make([]byte, 1))
			return err
		}},
		{"write after the deadline", func(c net.Conn, _ *net.TCPConn) error {
			_ = c.SetWriteDeadline(time.Unix(1, 0))
			_, err := c.Write(make([]byte, 1))
			return err
		}},
		{"end", func(c net.Conn, client *net.TCPConn) error {
			client.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		}},
		{"reset", func(c net.Conn, client *net.TCPConn) error {
			_ = client.SetLinger(0)
			client.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		}},
		{"read when closed", func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		}},
		{"write when closed", func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			_, err := c.Write(make([]byte, 1))
			return err
		}},
		{"deadline when closed", func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			return c.SetDeadline(time.Now())
		}},
		{"option when closed", func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			return c.(interface{ SetNoDelay(bool) error }).SetNoDelay(true)
		}},
		{"descriptor when closed", func(c net.Conn, _ *net.TCPConn) error {
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				return err
			}
			c.Close()
			return raw.Control(func(uintptr) {})
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			conns, clients := both(t)
			have, want := f.do(conns[0], clients[0]), f.do(conns[1], clients[1])
			var ho, wo *net.OpError
			if errors.As(have, &ho) != errors.As(want, &wo) {
				t.Fatalf("have %#v, want %#v", have, want)
			}
			if wo == nil {
				if have != want {
					t.Fatalf("have %v, want %v", have, want)
				}
				return
			}
			if ho.Op != wo.Op || ho.Net != wo.Net || ho.Timeout() != wo.Timeout() || ho.Err.Error() != wo.Err.Error() {
				t.Errorf("have %v, want %v", ho, wo)
			}
			for _, e := range []error{net.ErrClosed, os.ErrDeadlineExceeded, unix.ECONNRESET} {
				if errors.Is(have, e) != errors.Is(want, e) {
					t.Errorf("have %v, want %v: not the same as to %v", have, want, e)
				}
			}
			if ho.Source.String() != conns[0].LocalAddr().String() || ho.Addr.String() != conns[0].RemoteAddr().String() {
				t.Errorf("between %v and %v, want %v and %v", ho.Source, ho.Addr, conns[0].LocalAddr(), conns[0].RemoteAddr())
			}
		})
	}
}

func TestOptionsAreSet(t *testing.T) {
	c, _ := ours(t, "tcp")
	tc := c.(*tcpConn)
	get := func(level, opt int) (v int) {
		raw, err := tc.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, opt) }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, o := range []struct {
		name             string
		set              error
		level, opt, want int
	}{
		{"no delay", tc.SetNoDelay(false), unix.IPPROTO_TCP, unix.TCP_NODELAY, 0},
		{"keep-alive", tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 1500 * time.Millisecond, Interval: -1, Count: 4}), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"idle", nil, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2},
		{"count", nil, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		{"period", tc.SetKeepAlivePeriod(time.Minute), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)},
	} {
		if o.set != nil {
			t.Errorf("%s: %v", o.name, o.set)
		}
		if v := get(o.level, o.opt); o.name != "idle" && v != o.want {
			t.Errorf("%s is %d, want %d", o.name, v, o.want)
		}
	}
	if v := get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); v != 60 {
		t.Errorf("idle is %d after SetKeepAlivePeriod, want 60", v)
	}
}

// TestCopiesAreWhole copies more than fits into sockets and pipes, by each way.
func TestCopiesAreWhole(t *testing.T) {
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(t *testing.T) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	// feed returns a connection whose client sends data.
	feed := func(c net.Conn, client net.Conn) net.Conn {
		go func() {
			_, _ = client.Write(data)
			_ = client.(interface{ CloseWrite() error }).CloseWrite()
		}()
		return c
	}
	for _, way := range []struct {
		name string
		copy func(t *testing.T, dst net.Conn) (int64, error)
		want int
	}{
		{"file", func(t *testing.T, dst net.Conn) (int64, error) { return io.Copy(dst, file(t)) }, len(data)},
		{"beginning of a file", func(t *testing.T, dst net.Conn) (int64, error) { return io.CopyN(dst, file(t), 1<<20) }, 1 << 20},
		{"memory", func(t *testing.T, dst net.Conn) (int64, error) {
			return dst.(io.ReaderFrom).ReadFrom(struct{ io.Reader }{bytes.NewReader(data)})
		}, len(data)},
		{"pipe", func(t *testing.T, dst net.Conn) (int64, error) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			go func() { _, _ = w.Write(data); w.Close() }()
			return io.Copy(dst, r)
		}, len(data)},
		{"ours", func(t *testing.T, dst net.Conn) (int64, error) { return io.Copy(dst, feed(ours(t, "tcp"))) }, len(data)},
		{"ours, by Unix", func(t *testing.T, dst net.Conn) (int64, error) { return io.Copy(dst, feed(ours(t, "unix"))) }, len(data)},
		{"net's", func(t *testing.T, dst net.Conn) (int64, error) {
			conns, clients := both(t)
			return io.Copy(dst, feed(conns[1], clients[1]))
		}, len(data)},
		{"beginning of net's", func(t *testing.T, dst net.Conn) (int64, error) {
			conns, clients := both(t)
			return io.CopyN(dst, feed(conns[1], clients[1]), 1<<20)
		}, 1 << 20},
		{"to net's", func(t *testing.T, dst net.Conn) (int64, error) {
			conns, clients := both(t)
			go func() {
				_, _ = io.Copy(conns[1], feed(ours(t, "tcp")))
				_ = conns[1].(*net.TCPConn).CloseWrite()
			}()
			return io.Copy(dst, clients[1])
		}, len(data)},
	} {
		t.Run(way.name, func(t *testing.T) {
			dst, client := ours(t, "tcp")
			done := make(chan error, 1)
			go func() {
				n, err := way.copy(t, dst)
				if err == nil && n != int64(way.want) {
					err = io.ErrShortWrite
				}
				dst.Close()
				done <- err
			}()
			_ = client.SetDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(client)
			if err != nil || !bytes.Equal(got, data[:way.want]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAddressesAreThoseOfPackageNet(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(at, func(t *testing.T) {
			ln, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			client, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			local, remote := s.LocalAddr().String(), s.RemoteAddr().String()
			c, err := newConn(alone("tcp"), incoming{fd: detach(t, s.(*net.TCPConn))})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.LocalAddr().String() != local || c.RemoteAddr().String() != remote {
				t.Errorf("between %v and %v, want %v and %v", c.LocalAddr(), c.RemoteAddr(), local, remote)
			}
		})
	}
}

// TestMovedConnectionMayBlock: an application that had a connection may have
// set its mode, which goes with it.
func TestMovedConnectionMayBlock(t *testing.T) {
	client, fd := tcpPair(t)
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	c, err := newConn(alone("tcp"), incoming{fd: fd, moved: &Moved{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	client.Close()
}

// readerFrom keeps what it is to read from.
type readerFrom struct {
	io.Writer
	r io.Reader
}

func (f *readerFrom) ReadFrom(r io.Reader) (int64, error) {
	f.r = r
	return 0, nil
}

// TestFilesAreSentByTheKernel: also by what io.Copy makes of them.
func TestFilesAreSentByTheKernel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var made readerFrom
	if _, err := io.Copy(&made, f); err != nil {
		t.Fatal(err)
	}
	c, _ := ours(t, "tcp")
	for _, r := range []io.Reader{f, made.r, io.LimitReader(f, 3)} {
		_, _ = f.Seek(0, io.SeekStart)
		if n, err, done := c.(*tcpConn).inner.sendFile(r); n < 3 || err != nil || !done {
			t.Errorf("%T: %d bytes, %v, by the kernel: %v", r, n, err, done)
		}
	}
	if _, _, done := c.(*tcpConn).inner.sendFile(struct{ *os.File }{f}); done {
		t.Error("a type that may have a Read of its own is sent by the kernel")
	}
}
