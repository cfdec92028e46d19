//go:build unix

package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketFile remembers which file is ours: device and inode, since a path can
// be given to somebody else.
type socketFile struct {
	path string // absolute, so that a chdir does not matter
	info fs.FileInfo
}

func identify(path string) (*socketFile, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(abs)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("not a socket")
	}
	return &socketFile{abs, info}, nil
}

// unlink removes the file if it is still ours, and leaves alone what somebody
// put in its place.
func (f *socketFile) unlink() error {
	now, err := os.Lstat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !os.SameFile(f.info, now) {
		return nil
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeStale makes way for bind. Whether a socket file is stale only a
// connect can tell: it is refused when nobody listens any more.
func (s Spec) removeStale() error {
	found, err := identify(s.Address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listener %q: address %q: file exists: %w", s.Name, s.Address, err)
	}
	conn, err := net.DialTimeout("unix", s.Address, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("listener %q: address %q: %w: a process answers there", s.Name, s.Address, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("listener %q: address %q: %w: a process listens there, with a full queue", s.Name, s.Address, syscall.EADDRINUSE)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("listener %q: address %q: socket exists, cannot tell whether it is in use: %w", s.Name, s.Address, err)
	}
	if err := found.unlink(); err != nil {
		return fmt.Errorf("listener %q: address %q: remove stale socket: %w", s.Name, s.Address, err)
	}
	return nil
}

// bindMode is the mode to create the file with, never more than it ends with;
// nil leaves it to the umask. With an owner to come it lets nobody in: group
// bits would first be those of the wrong group.
func (s Spec) bindMode() *fs.FileMode {
	mode := s.Mode
	switch {
	case mode == 0:
		return nil
	case s.Owner != "":
		mode = 0
	}
	return &mode
}

// applyFileMode gives the new file its owner, then its exact mode. Neither
// follows a symbolic link that somebody may have put there.
func (s Spec) applyFileMode() error {
	if s.Owner != "" {
		uid, gid, err := s.ownerIDs()
		if err != nil {
			return err
		}
		if err := os.Lchown(s.Address, uid, gid); err != nil {
			return err
		}
	}
	if s.Mode == 0 {
		return nil
	}
	err := unix.Fchmodat(unix.AT_FDCWD, s.Address, uint32(s.Mode), unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) { // Linux before 6.6
		err = os.Chmod(s.Address, s.Mode)
	}
	if err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// lockWait bounds the wait for another process that binds in the same
// directory, or for one that holds its lock for reasons of its own.
const lockWait = time.Second

// lockDir serialises those who bind in the directory of path, in all
// processes, and leaves no file behind. Where it cannot, it lets the caller go
// ahead: the lock narrows a race between starting processes, no more.
func lockDir(path string) (unlock func()) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(lockWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return func() { dir.Close() }
}
