//go:build unix

package rundir

import (
	"os"
	"path/filepath"
	"testing"
)

// A directory that Baton made is opened for its guest, as far as that needs; one
// that it did not make is refused.
func TestAdmitOpensWhatWasMadeForItsGuestAlone(t *testing.T) {
	base := t.TempDir()
	for dir := base; dir != filepath.Dir(dir) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	guest := os.Geteuid() + 1
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	made := filepath.Join(base, "made")
	d, err := Open(made)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Admit(guest); err != nil || mode(made) != 0o711 {
		t.Errorf("made: %v, mode %v", err, mode(made))
	}
	if err := os.Remove(made); err != nil {
		t.Fatal(err)
	}
	if again, err := d.Restore(); !again || err != nil || mode(made) != 0o711 {
		t.Errorf("made again: %v, %v, mode %v", again, err, mode(made))
	}
	found := filepath.Join(base, "found")
	if err := os.Mkdir(found, 0o700); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(found); err != nil {
		t.Fatal(err)
	}
	if err := d.Admit(guest); err == nil || mode(found) != 0o700 {
		t.Errorf("found: %v, mode %v", err, mode(found))
	}
	if err := os.Chmod(found, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.Admit(guest); err != nil || mode(found) != 0o755 {
		t.Errorf("found, and open: %v, mode %v", err, mode(found))
	}
}
