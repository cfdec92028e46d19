//go:build linux

package listener

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that never hears the answer to its SYN stays in the middle.
func TestHandshakeIsSeen(t *testing.T) {
	l, err := Bind(NewSpec("tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Handshaking() {
		t.Fatal("a handshake before there is any client")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	deaf := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &deaf[0]}); err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !l.Handshaking(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the handshake is not seen")
		}
	}
}
