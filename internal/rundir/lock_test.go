//go:build unix

package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLockNamesItsHolder(t *testing.T) {
	d := open(t)
	c := spawn(t, "hold", d.Path())
	c.says(t, "held")
	_, err := d.Lock()
	var held *HeldError
	if !errors.As(err, &held) || held.PID != c.Process.Pid || held.Path != filepath.Join(d.Path(), "lock") {
		t.Fatalf("have %v, want it held by %d", err, c.Process.Pid)
	}
	if !strings.Contains(err.Error(), held.Path) {
		t.Errorf("have %q", err)
	}
	c.end(t)
	l, err := d.Lock()
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if have := content(t, held.Path); have != pidLine(os.Getpid()) {
		t.Errorf("have %q", have)
	}
	if err := l.Release(); err != nil || exists(t, held.Path) {
		t.Errorf("release: %v", err)
	}
}

func TestDeadHoldersLockIsFree(t *testing.T) {
	d := open(t)
	c := spawn(t, "hold", d.Path())
	c.says(t, "held")
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	// The dead one's pid may have been longer than ours.
	if have := content(t, l.path); have != pidLine(os.Getpid()) {
		t.Errorf("have %q", have)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestShorterPIDReplacesALongerOne(t *testing.T) {
	d := open(t)
	path := filepath.Join(d.Path(), "lock")
	if err := os.WriteFile(path, []byte("4194304\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writePID(f, 7); err != nil || content(t, path) != "7\n" {
		t.Errorf("have %q, %v", content(t, path), err)
	}
}

func TestUnreadablePIDIsZero(t *testing.T) {
	d := open(t)
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	for _, s := range []string{"", "x\n", "-1\n", "0\n", strings.Repeat("9", 100)} {
		if err := os.WriteFile(l.path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		// A lock belongs to an open file, so this process competes with itself.
		_, err := d.Lock()
		var held *HeldError
		if !errors.As(err, &held) || held.PID != 0 || !strings.Contains(err.Error(), "another process") {
			t.Errorf("%q: have %v", s, err)
		}
	}
}

func TestLockedFileWithoutANameIsNoLock(t *testing.T) {
	d := open(t)
	path := filepath.Join(d.Path(), "lock")
	f, err := openLock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	// f was opened before the holder left, and is locked after it.
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if err := take(f, path); err != nil {
		t.Fatal(err)
	}
	if isAt(f, path) {
		t.Error("the unlinked file passes for the lock")
	}
	l, err = d.Lock()
	if err != nil {
		t.Fatalf("the name is free: %v", err)
	}
	if isAt(f, path) {
		t.Error("the replaced file passes for the lock")
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

// Many goroutines stand for many processes: a lock belongs to an open file.
func TestOneHolderAtATime(t *testing.T) {
	d := open(t)
	var inside sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for taken := 0; taken < 20; {
				l, err := d.Lock()
				var held *HeldError
				if errors.As(err, &held) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				taken++
				alone := inside.TryLock()
				if !alone {
					t.Error("two holders")
				}
				runtime.Gosched()
				if alone {
					inside.Unlock()
				}
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAdoptedLockSurvivesItsFirstHolder(t *testing.T) {
	d := open(t)
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	c := spawn(t, "adopt", d.Path(), l.File())
	c.says(t, "held")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil || !exists(t, l.path) {
		t.Fatalf("a release after the handover took the lock's file away: %v", err)
	}
	_, err = d.Lock()
	var held *HeldError
	if !errors.As(err, &held) || held.PID != c.Process.Pid {
		t.Fatalf("have %v, want it held by the successor %d", err, c.Process.Pid)
	}
	if have := content(t, l.path); have != pidLine(c.Process.Pid) {
		t.Errorf("have %q", have)
	}
	c.end(t)
	if exists(t, l.path) {
		t.Error("the successor's release left the file")
	}
	if l, err = d.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestAdoptLockRefusesWhatIsNotTheLock(t *testing.T) {
	d := open(t)
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()

	// The right file, opened by somebody else: no lock comes with it.
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, err := AdoptLock(d, f); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("second description: have %v", err)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file was left open: %v", err)
	}
	f, err = os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AdoptLock(d, f); err == nil || !strings.Contains(err.Error(), "is not the one at this path") {
		t.Errorf("another file: have %v", err)
	}
}

func TestAdoptedDescriptorIsNotInheritedFurther(t *testing.T) {
	d := open(t)
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(l.File().Fd())) // without CLOEXEC, as it comes out of an exec
	if err != nil {
		t.Fatal(err)
	}
	a, err := AdoptLock(d, os.NewFile(uintptr(fd), "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(a.File().Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("have flags %#x, %v", flags, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Release(); err != nil {
		t.Error(err)
	}
}

func TestLockRefusesWhatIsNotItsFile(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"symbolic link", func(p string) error { return os.Symlink(filepath.Join(filepath.Dir(p), "x"), p) }, "is a symbolic link"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }, "expected a regular file"},
		{"writable by all", func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Chmod(p, 0o666)
		}, "has mode 0666, expected at most 0644"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t)
			path := filepath.Join(d.Path(), "lock")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Lock(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("have %v, want %q", err, tt.want)
			}
			if exists(t, filepath.Join(d.Path(), "x")) {
				t.Error("the link was followed")
			}
		})
	}
}
