//go:build unix

package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRestoreMakesTheDirectoryAgain(t *testing.T) {
	base := t.TempDir()
	path := filepath.Join(base, "a", "b")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := d.Restore(); made || err != nil {
		t.Errorf("one that is there: made %v, %v", made, err)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if made, err := d.Restore(); !made || err != nil {
		t.Errorf("one that is gone: made %v, %v", made, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != dirMode || !d.Made() {
		t.Errorf("%v, %v; made %v", info, err, d.Made())
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Restore(); err == nil {
		t.Error("one that everybody may write to is taken for well")
	}
	_ = os.RemoveAll(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if made, err := d.Restore(); made || err == nil {
		t.Errorf("a file in its place: made %v, %v", made, err)
	}
}

func TestRelockExcludesOthersAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Relock(); again != nil || err != nil || !d.Holds() || !l.Named() {
		t.Fatalf("one that is there: %v, %v; holds %v", again, err, d.Holds())
	}
	if err := os.Remove(d.LockPath()); err != nil {
		t.Fatal(err)
	}
	if d.Holds() {
		t.Error("a lock without a name holds")
	}
	again, err := d.Relock()
	if err != nil || again == nil {
		t.Fatalf("%v, %v", again, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if again.Named() {
		t.Error("it names somebody before Claim")
	}
	if err := again.Claim(); err != nil || !again.Named() || !d.Holds() {
		t.Errorf("claim: %v, named %v, holds %v", err, again.Named(), d.Holds())
	}
	other, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, err := other.Lock(); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("another: %v", err)
	}
	// Somebody was faster: it is theirs.
	if err := os.Remove(d.LockPath()); err != nil {
		t.Fatal(err)
	}
	theirs, err := other.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := d.Relock(); l != nil || !errors.As(err, &held) {
		t.Errorf("another's: %v, %v", l, err)
	}
	if err := errors.Join(theirs.Release(), again.Close()); err != nil {
		t.Error(err)
	}
}

func TestPIDFileIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	for _, c := range []struct {
		text         string // "-": no file
		there, names bool
	}{{"-", false, false}, {"17\n", true, true}, {"18\n", true, false}, {"", true, false}} {
		if c.text != "-" {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if there, names, err := PIDFileIs(path, 17); there != c.there || names != c.names || err != nil {
			t.Errorf("%q: there %v, names %v, %v", c.text, there, names, err)
		}
	}
}
