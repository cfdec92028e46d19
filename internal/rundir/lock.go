//go:build unix

package rundir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// HeldError says that another live process holds the lock.
type HeldError struct {
	PID  int    // of the holder as it wrote it, 0 if that cannot be read
	Path string // of the lock
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock %s: held by another process", e.Path)
	}
	return fmt.Sprintf("lock %s: held by pid %d", e.Path, e.PID)
}

// Lock is the right to be the master of a runtime directory. It belongs to an
// open file, not to a process: it ends when the last descriptor is closed, by
// whatever death, and passes to whom the descriptor is passed.
type Lock struct {
	path   string
	f      *os.File
	closed atomic.Bool
}

// maxLockTries bounds the chase after a file that is replaced again and again;
// each round needs another process that came and went in between.
const maxLockTries = 100

// Lock takes the directory's lock without waiting and writes this process's pid
// into it. *HeldError: another live process has it.
func (d *Dir) Lock() (*Lock, error) {
	l, err := d.Borrow()
	if err != nil {
		return nil, err
	}
	if err := l.Claim(); err != nil {
		l.f.Close()
		return nil, err
	}
	return l, nil
}

// Borrow is Lock for one who is not to be the master: the file goes on naming the
// last one.
func (d *Dir) Borrow() (*Lock, error) {
	path := filepath.Join(d.path, lockName)
	for range maxLockTries {
		f, err := openLock(path)
		if err != nil {
			return nil, err
		}
		if err := take(f, path); err != nil {
			f.Close()
			return nil, err
		}
		// A leaving holder unlinks the file before it closes it. Who opened it
		// before that has now locked a file without a name, which excludes nobody.
		if !isAt(f, path) {
			f.Close()
			continue
		}
		return d.keep(f, path), nil
	}
	return nil, fmt.Errorf("lock %s: was replaced %d times", path, maxLockTries)
}

// AdoptLock holds a lock whose descriptor the predecessor passed on. Its file
// goes on naming the predecessor until Claim. It takes ownership of f, also when
// it fails. *HeldError: f does not carry the lock, another process has it.
func AdoptLock(d *Dir, f *os.File) (*Lock, error) {
	path := filepath.Join(d.path, lockName)
	unix.CloseOnExec(int(f.Fd()))
	if !isAt(f, path) {
		f.Close()
		return nil, fmt.Errorf("lock %s: the inherited file is not the one at this path", path)
	}
	// No change for a descriptor that carries the lock; a proof that it does.
	if err := take(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return d.keep(f, path), nil
}

// Claim writes this process's pid into an adopted lock.
func (l *Lock) Claim() error {
	if err := writePID(l.f, os.Getpid()); err != nil {
		return fmt.Errorf("lock %s: %w", l.path, err)
	}
	return nil
}

func (d *Dir) keep(f *os.File, path string) *Lock {
	l := &Lock{path: path, f: f}
	d.mu.Lock()
	d.lock = l
	d.mu.Unlock()
	return l
}

func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) {
			return nil, fmt.Errorf("lock %s: is a symbolic link, expected a regular file: %w", path, err)
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("lock: %w", err)
	case !fi.Mode().IsRegular():
		err = fmt.Errorf("lock %s: has mode %v, expected a regular file", path, fi.Mode())
	case owner(fi) != os.Geteuid():
		err = fmt.Errorf("lock %s: is owned by uid %d, expected uid %d", path, owner(fi), os.Geteuid())
	case fi.Mode().Perm()&0o022 != 0:
		err = fmt.Errorf("lock %s: has mode %04o, expected at most 0644", path, fi.Mode().Perm())
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

// take locks f, or tells who has it.
func take(f *os.File, path string) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return &HeldError{PID: readPID(f), Path: path}
		default:
			return fmt.Errorf("lock %s: flock: %w", path, err)
		}
	}
}

// isAt is whether f is the file that path names now.
func isAt(f *os.File, path string) bool {
	there, err := os.Lstat(path)
	if err != nil {
		return false
	}
	here, err := f.Stat()
	return err == nil && os.SameFile(there, here)
}

// writePID replaces the content such that at every moment its first line is a
// pid: who is refused reads it while it is being written.
func writePID(f *os.File, pid int) error {
	b := strconv.AppendInt(nil, int64(pid), 10)
	b = append(b, '\n')
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(b)))
}

func readPID(f *os.File) int {
	var buf [32]byte
	n, _ := f.ReadAt(buf[:], 0)
	return parsePID(buf[:n])
}

func parsePID(b []byte) int {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}

// File is the open file that carries the lock, to pass on. It stays the lock's.
func (l *Lock) File() *os.File { return l.f }

// Release gives the lock up: it unlinks the file, if it is still the one at its
// path, and closes it. It does nothing after Close.
func (l *Lock) Release() error {
	if l.closed.Load() {
		return nil
	}
	// Unlinked while it is held, so that it cannot be a successor's.
	err := l.unlink()
	return errors.Join(err, l.Close())
}

// Close closes the file and leaves it in place: the lock was passed on. It is not
// unlocked, which would take it away from the successor too.
func (l *Lock) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

func (l *Lock) unlink() error {
	if !isAt(l.f, l.path) {
		return nil
	}
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}
