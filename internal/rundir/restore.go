//go:build unix

package rundir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Somebody may remove the files of a service that runs: a cleaner of temporary
// files, or an operator who takes them for leftovers.

// Restore makes the directory again if it is gone, with the missing ones above it,
// and tells whether it did. One that is there is held to the rules of Open.
func (d *Dir) Restore() (made bool, err error) {
	if made, err = makeAll(d.path); err != nil {
		return made, err
	}
	if made {
		d.mu.Lock()
		d.ours = true
		guest := d.guest
		d.mu.Unlock()
		if guest != 0 {
			if err := d.Admit(guest); err != nil {
				return made, err
			}
		}
	}
	return made, check(d.path, os.Geteuid())
}

// Relock returns another lock, which is this process's from now on, if the file of
// the one that it has is not at its path any more; nil if it is. A lock without a
// name keeps nobody out; who has taken the path meanwhile is a *HeldError. Close
// the old one.
//
// The new file may name nobody, for want of room: see Lock.Named.
func (d *Dir) Relock() (*Lock, error) {
	d.mu.Lock()
	l := d.lock
	d.mu.Unlock()
	if l == nil || l.closed.Load() || isAt(l.f, l.path) {
		return nil, nil
	}
	if _, err := os.Lstat(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // it may be there
	}
	return d.Borrow()
}

// Holds says whether this process has the lock, and its file is at its path.
func (d *Dir) Holds() bool {
	d.mu.Lock()
	l := d.lock
	d.mu.Unlock()
	return l != nil && !l.closed.Load() && isAt(l.f, l.path)
}

// Named says whether the lock's file names this process. See Claim.
func (l *Lock) Named() bool { return readPID(l.f) == os.Getpid() }

// HasRecord says whether there is a record, or something in its place.
func (d *Dir) HasRecord() (bool, error) {
	_, err := os.Lstat(d.record())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// PIDFileIs says whether the file at path names pid, and whether there is one.
func PIDFileIs(path string, pid int) (there, names bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	return err == nil, err == nil && parsePID(b) == pid, err
}

// LockPath is where the lock's file is.
func (d *Dir) LockPath() string { return filepath.Join(d.path, lockName) }

// RecordPath is where the record is.
func (d *Dir) RecordPath() string { return d.record() }
