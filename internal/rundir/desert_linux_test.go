package rundir

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// abandoned is a directory as a killed master leaves it, with a record.
func abandoned(t *testing.T, record string) *Dir {
	t.Helper()
	d := open(t)
	for _, name := range []string{lockName, socketName, adoptName} {
		if err := os.WriteFile(filepath.Join(d.Path(), name), []byte("4194305\n"), 0o600); err != nil { // more than a pid can be
			t.Fatal(err)
		}
	}
	if err := d.WriteRecord([]byte(record)); err != nil {
		t.Fatal(err)
	}
	return d
}

func names(t *testing.T, d *Dir) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLastWorkerToDesertTidiesUp(t *testing.T) {
	d := abandoned(t, "two")
	desert := func(rest []byte) (asked string) {
		t.Helper()
		err := Desert(d.AdoptSocket(), func(record []byte) []byte {
			asked = string(record)
			return rest
		})
		if err != nil {
			t.Fatal(err)
		}
		return asked
	}
	if asked := desert([]byte("one")); asked != "two" || len(names(t, d)) != 4 {
		t.Errorf("asked for %q, left %v", asked, names(t, d))
	}
	if pid := content(t, filepath.Join(d.Path(), lockName)); pid != "4194305\n" {
		t.Errorf("the lock names %q, not the dead master", pid)
	}
	// A master that has come has the directory.
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if asked := desert(nil); asked != "" || len(names(t, d)) != 4 {
		t.Errorf("with a master: asked for %q, left %v", asked, names(t, d))
	}
	lock.Close()
	if err := os.WriteFile(filepath.Join(d.Path(), lockName), []byte("4194305\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Another worker that leaves is waited for.
	other, err := d.Borrow()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(30*time.Millisecond, func() { other.Close() })
	if asked := desert(nil); asked != "one" || len(names(t, d)) != 0 {
		t.Errorf("the last one: asked for %q, left %v", asked, names(t, d))
	}
	// The directory may be gone, and is not made again.
	if err := os.Remove(d.Path()); err != nil {
		t.Fatal(err)
	}
	if asked := desert(nil); asked != "" || exists(t, d.Path()) {
		t.Errorf("without a directory: asked for %q", asked)
	}
}

// A process with the pid and the start of the record is none of the workers yet.
func TestDismissSignalsNobodyElse(t *testing.T) {
	page, err := unix.MemfdCreate("page", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(page)
	var st unix.Stat_t
	if err := unix.Fstat(page, &st); err != nil {
		t.Fatal(err)
	}
	var w leftWorker
	w.PID, w.Start = os.Getpid(), startOf(os.Getpid())
	w.Page.Dev, w.Page.Ino = uint64(st.Dev), st.Ino
	if !w.proven() || !w.alive() {
		t.Errorf("%+v is this process", w)
	}
	other := w
	other.Page.Ino++
	if other.proven() {
		t.Errorf("%+v is believed", other)
	}
	record, err := json.Marshal(map[string]any{"generations": []any{map[string]any{"workers": []leftWorker{other}}}})
	if err != nil {
		t.Fatal(err)
	}
	d := abandoned(t, string(record))
	if n := Left(d.Path()); n != 1 {
		t.Errorf("%d left, want 1", n)
	}
	if n, err := Dismiss(d.Path(), true); n != 0 || err != nil { // else this test ends here
		t.Errorf("dismissed %d, %v", n, err)
	}
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Dismiss(d.Path(), true); err == nil {
		t.Error("workers of a master that lives are dismissed")
	}
}
