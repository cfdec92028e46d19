//go:build unix

package rundir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPIDFileIsWrittenWhole(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "app.pid")
	for _, pid := range []int{1234567, 12} {
		if err := WritePIDFile(path, pid); err != nil {
			t.Fatal(err)
		}
		if have := content(t, path); have != pidLine(pid) {
			t.Errorf("have %q", have)
		}
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("have %v, %v", fi.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPIDFileErrorsNameThePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "app.pid")
	if err := WritePIDFile(path, 1); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("have %v", err)
	}
}

func TestPIDFileIsRemovedOnlyByItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.pid")
	if err := RemovePIDFile(path, 7); err != nil {
		t.Errorf("none there: %v", err)
	}
	for _, tt := range []struct {
		content string
		gone    bool
	}{
		{"7\n", true},
		{"7", true},
		{"8\n", false}, // the successor's
		{"77\n", false},
		{"", false},
		{"seven\n", false},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := RemovePIDFile(path, 7); err != nil {
			t.Errorf("%q: %v", tt.content, err)
		}
		if gone := !exists(t, path); gone != tt.gone {
			t.Errorf("%q: gone %t, want %t", tt.content, gone, tt.gone)
		}
	}
}
