//go:build unix

package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const dirMode fs.FileMode = 0o700

// Dir is an opened runtime directory. It is checked once, by Open; it holds no
// file descriptor.
type Dir struct {
	path string

	mu    sync.Mutex
	ours  bool  // Baton made it, so Baton removes it
	guest int   // user who may search it, see Admit; 0: none
	lock  *Lock // of this process, nil if none was taken
}

// Open makes the directory with mode 0700, the missing ones above it too, or
// checks the one that is there. It and its parent must be safe from other users;
// see the package's doc. An existing one may be readable by others, as systemd's
// RuntimeDirectory is, except under /tmp/baton-UID.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("runtime directory %s: %w", path, err)
	}
	if s := SocketPath(abs); len(s) > maxSocketPath {
		return nil, fmt.Errorf("runtime directory %s: the socket's path %s has %d bytes, expected at most %d: %w",
			abs, s, len(s), maxSocketPath, errTooLong)
	}
	created, err := makeAll(abs)
	if err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	uid := os.Geteuid()
	if err := check(abs, uid); err != nil {
		return nil, err
	}
	// A successor finds the directory that its predecessor made: those in the
	// default places are known by where they are.
	return &Dir{path: abs, ours: created || isFamily(filepath.Dir(abs), uid)}, nil
}

// makeAll makes path and what is missing above it, and tells whether it made
// path itself.
func makeAll(path string) (bool, error) {
	// A predecessor that leaves may remove a directory between two steps.
	var err error
	for range 10 {
		if err = os.MkdirAll(filepath.Dir(path), dirMode); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		err = os.Mkdir(path, dirMode)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, fs.ErrExist):
			return false, nil
		case !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	return false, err
}

// check refuses a runtime directory that another user could have a hand in.
func check(path string, uid int) error {
	// systemd's DynamicUser makes the directory a link into /run/private, so a
	// link is followed if nobody else can have set it; its target is then held to
	// the same rules.
	link, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	target := path
	if link.Mode().Type() == fs.ModeSymlink {
		if u := owner(link); u != uid && u != 0 {
			return fmt.Errorf("runtime directory %s: is a link owned by uid %d, expected uid %d or root", path, u, uid)
		}
		if err := checkParent(filepath.Dir(path), uid); err != nil {
			return err
		}
		if target, err = filepath.EvalSymlinks(path); err != nil {
			return fmt.Errorf("runtime directory %s: is a link: %w", path, err)
		}
	}
	parent := filepath.Dir(target)
	if err := checkParent(parent, uid); err != nil {
		return err
	}
	allow := fs.FileMode(0o755)
	if filepath.Base(parent) == familyOf(uid) {
		// It stands where anyone can make a directory of this name: the mode too
		// must be the one that we made it with.
		allow = dirMode
		if err := checkOwn(parent, uid, dirMode); err != nil {
			return err
		}
		if err := checkParent(filepath.Dir(parent), uid); err != nil {
			return err
		}
	}
	return checkOwn(target, uid, allow)
}

// checkOwn wants a directory of uid with no more permissions than allow.
func checkOwn(path string, uid int, allow fs.FileMode) error {
	fi, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("runtime directory: %w", err)
	case !fi.IsDir():
		return fmt.Errorf("runtime directory %s: is a file of mode %v, expected a directory", path, fi.Mode())
	case owner(fi) != uid:
		return fmt.Errorf("runtime directory %s: is owned by uid %d, expected uid %d", path, owner(fi), uid)
	case fi.Mode().Perm()&^allow != 0:
		return fmt.Errorf("runtime directory %s: has mode %04o, expected at most %04o", path, fi.Mode().Perm(), allow)
	}
	return nil
}

// checkParent wants a directory in which no third user can put something else in
// the place of ours: of uid or root and closed to other writers, or sticky.
func checkParent(path string, uid int) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	perm := fi.Mode().Perm()
	switch {
	case fi.Mode()&fs.ModeSticky != 0 && perm&0o002 != 0:
		return nil
	case owner(fi) != uid && owner(fi) != 0:
		return fmt.Errorf("runtime directory: parent %s: is owned by uid %d, expected uid %d or root", path, owner(fi), uid)
	case perm&0o022 != 0:
		return fmt.Errorf("runtime directory: parent %s: has mode %04o, expected it not to be writable by group and others, or sticky",
			path, perm)
	}
	return nil
}

// Made says whether Baton made the directory, and so removes it at the end.
func (d *Dir) Made() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ours
}

// Inherit makes this process the one that removes the directory, which its
// predecessor has made.
func (d *Dir) Inherit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ours = true
}

// Path of the directory, absolute.
func (d *Dir) Path() string { return d.path }

// Socket is the control socket's path in it.
func (d *Dir) Socket() string { return SocketPath(d.path) }

// Remove removes the control socket, the lock's file and, if nothing else is in
// it and Baton made it, the directory. Call it with the lock held, as the last
// thing before Lock.Release: the moment the lock's file is gone a new master may
// move in. Without a lock of its own it takes the free one, and leaves everything
// alone if another process holds it.
func (d *Dir) Remove() error {
	d.mu.Lock()
	l := d.lock
	d.mu.Unlock()
	if l == nil || l.closed.Load() {
		var err error
		l, err = d.Lock()
		var held *HeldError
		switch {
		case errors.As(err, &held), errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		defer l.Close()
	}
	if err := os.Remove(d.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runtime directory: %w", err)
	}
	if err := l.unlink(); err != nil {
		return err
	}
	if !d.Made() {
		return nil
	}
	// What else is there was not put there by us, or by our successor already.
	err := syscall.Rmdir(d.path)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist):
		return nil
	}
	return fmt.Errorf("runtime directory: rmdir %s: %w", d.path, err)
}
