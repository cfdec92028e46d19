//go:build unix

package rundir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxRecord is more than thousands of workers need.
const maxRecord = 16 << 20

// WriteRecord keeps data for the master that comes after this one: a reader finds
// the old record or the new one. Only the holder of the lock may.
//
// It does not wait for the disk: those whom a record names do not outlive the
// machine either.
func (d *Dir) WriteRecord(data []byte) error {
	f, err := os.CreateTemp(d.path, "."+recordName) // mode 0600
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), d.record())
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// ReadRecord returns what the last master has kept, nil if there is nothing. It
// refuses what another user could have written.
func (d *Dir) ReadRecord() ([]byte, error) {
	f, err := os.OpenFile(d.record(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("record: %w", err)
	case !fi.Mode().IsRegular() || fi.Size() > maxRecord:
		return nil, fmt.Errorf("record %s: has mode %v and %d bytes, expected a regular file of %d at most", f.Name(), fi.Mode(), fi.Size(), maxRecord)
	case owner(fi) != os.Geteuid() || fi.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("record %s: is owned by uid %d with mode %04o, expected uid %d and 0600", f.Name(), owner(fi), fi.Mode().Perm(), os.Geteuid())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return data, nil
}

// RemoveRecord removes it: there is nobody to take over. Only the holder of the
// lock may.
func (d *Dir) RemoveRecord() error {
	if err := os.Remove(d.record()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Tidy removes what a master that was killed has left and nobody needs: the
// socket for workers, and records that were being written. Only the holder of
// the lock may.
func (d *Dir) Tidy() error {
	left, err := filepath.Glob(filepath.Join(d.path, "."+recordName+"*"))
	errs := []error{err, d.RemoveAdopt()}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("record: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (d *Dir) record() string { return filepath.Join(d.path, recordName) }

// AdoptSocket is the path where a master hears the workers of one that has died.
func (d *Dir) AdoptSocket() string { return filepath.Join(d.path, adoptName) }

// ListenAdopt binds that socket, for packets, in the place of one that is left
// from another master, for workers of user uid, 0 if they are of this one. Only the
// holder of the lock may. Closing the listener leaves the file, see RemoveAdopt.
func (d *Dir) ListenAdopt(uid int) (*net.UnixListener, error) {
	if err := d.RemoveAdopt(); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// Linux gives the file the mode of the socket, see package control.
		cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(cerr, err)
	}}
	l, err := lc.Listen(context.Background(), "unixpacket", d.AdoptSocket())
	if err != nil {
		return nil, fmt.Errorf("socket for workers: %w", err)
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	if uid != 0 && uid != os.Geteuid() {
		if err := os.Chown(d.AdoptSocket(), uid, -1); err != nil {
			u.Close()
			_ = d.RemoveAdopt()
			return nil, fmt.Errorf("socket for workers: %w", err)
		}
	}
	return u, nil
}

// RemoveAdopt removes the file of that socket.
func (d *Dir) RemoveAdopt() error {
	if err := os.Remove(d.AdoptSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socket for workers: %w", err)
	}
	return nil
}
