package ipc_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

func init() {
	children["few descriptors"] = fewDescriptorsChild
	children["many in flight"] = manyInFlightChild
}

// spawn executes the test binary in a role, with the child's end as fd 3.
func spawn(t *testing.T, role string, f *os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if f != nil {
		cmd.ExtraFiles = []*os.File{f}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// setNoFile lowers the limit so that exactly free more descriptors fit.
func setNoFile(free int) error {
	// The lowest free numbers are what the kernel gives out.
	limit := 0
	for left := free; ; limit++ {
		if _, err := unix.FcntlInt(uintptr(limit), unix.F_GETFD, 0); err == nil {
			continue
		}
		if left == 0 {
			break
		}
		left--
	}
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: uint64(limit)})
}

// fewDescriptorsChild answers each message with what it got of it.
func fewDescriptorsChild() int {
	c, err := ipc.NewConn(os.NewFile(3, "inherited"))
	if err == nil {
		err = setNoFile(3)
	}
	if err == nil {
		err = c.Send(1, nil, nil)
	}
	for err == nil {
		var f ipc.Frame
		if f, err = c.Recv(); errors.Is(err, ipc.ErrProtocol) {
			err = c.Send(3, []byte(err.Error()), nil)
			continue
		} else if err != nil {
			break
		}
		text := fmt.Sprintf("%d files, %d missing:", len(f.Files), f.Missing)
		for _, fd := range f.Files {
			var b [8]byte
			n, _ := unix.Pread(fd, b[:], 0)
			text += " " + string(b[:n])
			unix.Close(fd)
		}
		err = c.Send(f.Type, []byte(text), nil)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestDescriptorLimitIsLoad(t *testing.T) {
	c, f, err := pairFile(t)
	if err != nil {
		t.Fatal(err)
	}
	cmd := spawn(t, "few descriptors", f)
	defer cmd.Wait()
	defer cmd.Process.Kill()
	f.Close()
	wantFrame(t, c, 1, nil)

	files := tempFiles(t, 8)
	for _, tt := range []struct {
		files int
		want  string
	}{
		{8, "3 files, 5 missing: 0 1 2"},
		{3, "3 files, 0 missing: 0 1 2"},
		{4, "3 files, 1 missing: 0 1 2"},
		{0, "0 files, 0 missing:"},
	} {
		if err := c.TrySend(2, nil, files[:tt.files]); err != nil {
			t.Fatal(err)
		}
		wantFrame(t, c, 2, []byte(tt.want))
	}

	// As many as announced arrive, and the kernel says that there were more.
	d, err := c.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Sendmsg(int(d.Fd()), ipc.AppendFrame(nil, 2, 3, nil), unix.UnixRights(files...), nil, 0); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, c, 3, []byte("ipc: protocol error: header announces 3 descriptors, more than 3 came"))
	// Those that came were closed: there is room for three again.
	if err := c.TrySend(2, nil, files[:3]); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, c, 2, []byte("3 files, 0 missing: 0 1 2"))
}

// manyInFlightChild sends descriptors that nobody receives until the kernel has
// had enough, which it has at RLIMIT_NOFILE unless the user is privileged.
func manyInFlightChild() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c, f, err := ipc.Pair()
	if err != nil {
		return fail(err)
	}
	peer, err := ipc.NewConn(f)
	if err != nil {
		return fail(err)
	}
	if os.Getuid() == 0 {
		if err := unix.Setuid(65534); err != nil {
			return fail(err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		return fail(err)
	}
	files := make([]int, 40)
	sent := 0
	for ; err == nil; sent++ {
		err = c.TrySend(1, nil, files)
	}
	sent--
	if !errors.Is(err, ipc.ErrLoad) || !errors.Is(err, unix.ETOOMANYREFS) {
		return fail(fmt.Errorf("TrySend number %d: %w; want ErrLoad and ETOOMANYREFS", sent+1, err))
	}
	// It passes, and nothing of the refused message is there.
	for range sent {
		got, err := peer.Recv()
		if err != nil {
			return fail(err)
		}
		closeAll(got.Files)
	}
	if err := c.TrySend(2, nil, files); err != nil {
		return fail(err)
	}
	if got, err := peer.Recv(); err != nil || got.Type != 2 {
		return fail(fmt.Errorf("Recv = type %d, %v; want type 2", got.Type, err))
	}
	return 0
}

func TestTooManyInFlightIsLoad(t *testing.T) {
	if err := spawn(t, "many in flight", nil).Wait(); err != nil {
		t.Error(err)
	}
}
