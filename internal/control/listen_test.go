//go:build unix

package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenIsPrivateWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o177, 0o777} {
		old := unix.Umask(mask)
		path := filepath.Join(t.TempDir(), "s")
		unix.Umask(old)
		if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		unix.Umask(mask)
		l, err := bindPrivate(path)
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		// Before Listen's chmod: others must not have had a moment.
		if m := modeOf(t, path); m&^0o600 != 0 {
			t.Errorf("umask %03o: bound with mode %v", mask, m)
		}
		l.Close()
		unix.Umask(mask)
		l, err = Listen(path)
		now := unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		if now != mask {
			t.Errorf("umask %03o became %03o", mask, now)
		}
		if m := modeOf(t, path); m != 0o600 {
			t.Errorf("umask %03o: listens with mode %v", mask, m)
		}
		l.Close()
	}
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("live: have %v, want ErrInUse naming the path", err)
	}
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing unlinked the file: %v", err)
	}
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("stale: %v", err)
	}
	l.Close()

	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil || !strings.Contains(err.Error(), "expected a socket") {
		t.Errorf("regular file: have %v", err)
	}
	link := filepath.Join(t.TempDir(), "l")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(link); err == nil || !strings.Contains(err.Error(), "expected a socket") {
		t.Errorf("symbolic link: have %v", err)
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "no", "s")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: have %v", err)
	}
}

func TestListenFileServesTheInheritedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, err = ListenFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file was not taken over: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing unlinked the file: %v", err)
	}
}

func TestListenFileRefusesOtherFiles(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	f, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenFile(f); err == nil || !strings.Contains(err.Error(), "is a tcp socket, expected a unix one") {
		t.Errorf("tcp: have %v", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenFile(null); err == nil || !strings.Contains(err.Error(), os.DevNull) {
		t.Errorf("no socket: have %v", err)
	}
}
