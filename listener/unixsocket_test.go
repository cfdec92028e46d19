//go:build unix

package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// leaveStale leaves the file of a socket whose owner is gone.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	n, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	n.(*net.UnixListener).SetUnlinkOnClose(false)
	n.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func TestStaleSocketIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	leaveStale(t, path)
	l := bind(t, NewSpec("unix", path, Name("api")))
	dial(t, l)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if !gone(path) {
		t.Error("Close leaves the file")
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	s := NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("api"))
	l := bind(t, s)
	_, err := Bind(s)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(fmt.Sprint(err), "already in use") {
		t.Errorf("got %v, want already in use", err)
	}
	dial(t, l)
}

func TestForeignFileIsRefusedUntouched(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if l, err := Bind(NewSpec("unix", path, Name("api"))); err == nil {
			l.Close()
			t.Errorf("%s: bound", path)
		} else if !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: got %v", path, err)
		}
		if gone(path) {
			t.Errorf("%s: removed", path)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := Bind(NewSpec("unix", filepath.Join(dir, "no", "such"), Name("api"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: got %v", err)
	}
}

func TestOneOfManyTakesAStaleSocketOver(t *testing.T) {
	for range 20 { // a race that is lost only now and then
		s := NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("api"))
		leaveStale(t, s.Address)
		var mu sync.Mutex
		var won []*Listener
		var binding sync.WaitGroup
		for range 8 {
			binding.Go(func() {
				l, err := Bind(s)
				if err != nil {
					if !errors.Is(err, syscall.EADDRINUSE) {
						t.Error(err)
					}
					return
				}
				t.Cleanup(func() { l.Close() })
				mu.Lock()
				won = append(won, l)
				mu.Unlock()
			})
		}
		binding.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listeners think that the path is theirs", len(won))
		}
		dial(t, won[0])
	}
}

func TestOnlyOurOwnFileIsRemoved(t *testing.T) {
	s := NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("api"))
	l := bind(t, s)
	if err := os.Remove(s.Address); err != nil {
		t.Fatal(err)
	}
	successor := bind(t, s)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	dial(t, successor)

	// Nothing there is no error either.
	if err := os.Remove(s.Address); err != nil {
		t.Fatal(err)
	}
	if err := successor.Close(); err != nil {
		t.Error(err)
	}
}

func TestReleaseLeavesTheFile(t *testing.T) {
	s := NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("api"))
	l := bind(t, s)
	f := inherited(t, l.File())
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if gone(s.Address) {
		t.Fatal("removed")
	}
	next, err := FromFile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	dial(t, next)
	if err := next.Close(); err != nil || !gone(s.Address) {
		t.Errorf("the next owner's Close: %v, file gone: %v", err, gone(s.Address))
	}
}

func TestModeIsExactWhateverTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0, 0o600, 0o660, 0o666, 0o770, 0o777, 0o002} {
			path := filepath.Join(t.TempDir(), "s")
			unix.Umask(umask)
			l, err := Bind(NewSpec("unix", path, Name("api"), Mode(mode)))
			unix.Umask(0)
			if err != nil {
				t.Fatal(err)
			}
			want := mode
			if mode == 0 {
				want = fs.ModePerm &^ fs.FileMode(umask)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("umask %#o, mode %#o: got %v, %v, want %#o", umask, mode, info.Mode(), err, want)
			}
			l.Close()
		}
	}
}

func TestModeAndOwnerLeaveNoWindow(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	for _, tc := range []struct {
		owner string
		want  fs.FileMode
	}{{"", 0o640}, {"0:0", 0}} {
		path := filepath.Join(t.TempDir(), "s")
		s := NewSpec("unix", path, Name("api"), Mode(0o640), Owner(tc.owner))
		n, err := listen(s, s.bindMode()) // what Bind does before it changes the file
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm() != tc.want {
			t.Errorf("owner %q: bound with %v, %v, want %#o", tc.owner, info.Mode(), err, tc.want)
		}
		n.Close()
	}
}

func TestOwnerIsSet(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65533
	}
	path := filepath.Join(t.TempDir(), "s")
	bind(t, NewSpec("unix", path, Name("api"), Mode(0o660), Owner(fmt.Sprintf("%d:%d", uid, gid))))
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if int(st.Uid) != uid || int(st.Gid) != gid || st.Mode&0o777 != 0o660 {
		t.Errorf("got %d:%d %#o, want %d:%d 0660", st.Uid, st.Gid, st.Mode&0o777, uid, gid)
	}
}
