//go:build unix

package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFDLimitIsReportedAndPasses(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=fdlimit")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// runAtFDLimit is the child: the whole process has to be out of descriptors.
func runAtFDLimit() error {
	l, err := Bind(NewSpec("tcp4", "127.0.0.1:0"))
	if err != nil {
		return err
	}
	defer l.Close()
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		return err
	}
	var hoard []int
	for {
		fd, err := unix.Dup(client)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			return err
		}
		hoard = append(hoard, fd)
	}

	g := &testGate{room: 8}
	fds := make([]int, 8)
	if n, err := l.TryAccept(fds, g); n != 0 || err != nil {
		return fmt.Errorf("at the limit, empty queue: got %d, %v, want 0, nil", n, err)
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := unix.Connect(client, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	for _, accept := range []func([]int, Gate) (int, error){l.Accept, l.TryAccept} {
		n, err := accept(fds, g)
		full, ok := errors.AsType[ErrFull](err)
		if n != 0 || !errors.Is(err, ErrFDLimit) || !errors.Is(err, syscall.EMFILE) || !ok || full.Errno != syscall.EMFILE {
			return fmt.Errorf("at the limit: got %d, %v, want ErrFull with EMFILE", n, err)
		}
	}
	if held := g.outstanding(); held != 0 {
		return fmt.Errorf("at the limit: %d reservations held", held)
	}
	for _, fd := range hoard {
		unix.Close(fd)
	}
	n, err := l.Accept(fds, g)
	if n != 1 || err != nil {
		return fmt.Errorf("below the limit again: got %d, %v, want 1, nil", n, err)
	}
	return unix.Close(fds[0])
}
