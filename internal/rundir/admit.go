//go:build unix

package rundir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// search is the permission to go through a directory, for everybody; guests may do
// no more than that.
const search fs.FileMode = 0o111

// Admit lets processes of user uid reach the socket for workers, which is theirs
// to connect to then: what else is in the directory stays its owner's. It makes a
// directory that Baton made searchable; of another one, and of those above, it
// returns an error if they are not.
func (d *Dir) Admit(uid int) error {
	d.mu.Lock()
	d.guest = uid
	d.mu.Unlock()
	path, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		fi, err := os.Lstat(dir)
		if err != nil {
			return fmt.Errorf("runtime directory: %w", err)
		}
		ours := dir == path && d.Made() || dir == filepath.Join(SystemRun, family) && owner(fi) == os.Geteuid()
		switch mode := fi.Mode().Perm(); {
		case mode&0o001 != 0, owner(fi) == uid && mode&0o100 != 0:
		case ours && filepath.Base(filepath.Dir(path)) != familyOf(os.Geteuid()):
			if err := os.Chmod(dir, mode|search); err != nil {
				return fmt.Errorf("runtime directory: %w", err)
			}
		default:
			return fmt.Errorf("runtime directory %s: %s has mode %04o: expected one that user %d can search", d.path, dir, mode, uid)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
