//go:build unix

package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// desertTime bounds the wait of a worker that leaves for the lock: others that
// leave have it for a moment each.
const desertTime = time.Second

const lockPause = 5 * time.Millisecond

// await is Borrow, and waits for those who have borrowed it. Who names itself in
// it is a master, and is not waited for.
func (d *Dir) await(bound time.Duration) (*Lock, error) {
	for end := time.Now().Add(bound); ; time.Sleep(lockPause) {
		lock, err := d.Borrow()
		var held *HeldError
		if !errors.As(err, &held) || time.Now().After(end) ||
			held.PID != 0 && !errors.Is(syscall.Kill(held.PID, 0), syscall.ESRCH) {
			return lock, err
		}
	}
}

// Desert is called by a worker that leaves the directory of socket without a
// master. strike takes it out of the record, and returns nil if none of the others
// lives: then what the last master has left here is removed. Where there is a new
// master, that is its business; and where the directory is another user's, that of
// the next one.
func Desert(socket string, strike func(record []byte) (rest []byte)) error {
	path := filepath.Dir(socket)
	if info, err := os.Stat(path); err != nil || owner(info) != os.Geteuid() {
		return nil // the supervisor has removed it
	}
	d, err := Open(path)
	if err != nil {
		return err
	}
	lock, err := d.await(desertTime)
	var held *HeldError
	if errors.As(err, &held) {
		return nil
	}
	if err != nil {
		return err
	}
	record, err := d.ReadRecord()
	if err == nil && record != nil {
		if rest := strike(record); rest != nil {
			err = d.WriteRecord(rest)
			return errors.Join(err, lock.Close())
		}
	}
	return errors.Join(err, d.RemoveRecord(), d.Tidy(), d.Remove(), lock.Release())
}
