package listener

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenerIsPlainTCP(t *testing.T) {
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	p, err := unix.GetsockoptInt(int(l.File().Fd()), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || p != unix.IPPROTO_TCP {
		t.Errorf("protocol %d, %v, want %d", p, err, unix.IPPROTO_TCP)
	}
}

func TestFromFileRefusesMPTCP(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skipf("this kernel has no MPTCP: %v", err)
	}
	unix.Close(fd)
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	n, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	l, err := FromFile(NewSpec("tcp", ":0"), inherited(t, n.(syscall.Conn)))
	if err == nil {
		l.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "got MPTCP") {
		t.Errorf("got %v", err)
	}
}

func TestAbstractSocketHasNoFile(t *testing.T) {
	name := fmt.Sprintf("@baton-listener-test-%d", os.Getpid())
	l := bind(t, NewSpec("unix", name))
	dial(t, l)
	f := inherited(t, l.File())
	if _, err := Bind(l.Spec()); err == nil {
		t.Error("bound twice")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := FromFile(l.Spec(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if next.Addr().String() != name {
		t.Errorf("address %q, want %q", next.Addr(), name)
	}
	fds := make([]int, 1)
	if n, err := next.TryAccept(fds, &testGate{room: 1}); n != 1 || err != nil {
		t.Fatalf("got %d, %v, want 1, nil", n, err)
	}
	closeAll(t, fds)
}
