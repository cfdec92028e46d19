//go:build unix

package workers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindBinary(t *testing.T) {
	bin := t.TempDir()
	app := filepath.Join(bin, "the-app")
	if err := os.WriteFile(app, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(bin, "current")
	if err := os.Symlink(app, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	for _, tt := range []struct{ argv0, dir, want string }{
		{"the-app", "/somewhere", app},             // by PATH
		{"current", "/somewhere", link},            // and the link is kept
		{link, "/somewhere", link},                 // absolute
		{"./the-app", bin, app},                    // relative
		{"../x/./the-app", "/a/b", "/a/x/the-app"}, // cleaned, and not looked at
		{"sub/app", "/srv/service", "/srv/service/sub/app"},
	} {
		if got, err := FindBinary(tt.argv0, tt.dir); err != nil || got != tt.want {
			t.Errorf("%s in %s: %s, %v, want %s", tt.argv0, tt.dir, got, err, tt.want)
		}
	}
	if got, err := FindBinary("no-such-app", bin); err == nil {
		t.Errorf("found %s", got)
	}
}

func TestPinSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "no such file",
		dir:                           "not a regular file",
		plain:                         "not executable",
	} {
		b, err := Pin(path)
		if err == nil {
			b.Close()
			t.Errorf("%s was pinned", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := Pin(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not match fs.ErrNotExist", err)
	}
	if err := os.Chmod(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := Pin(plain) // no Go binary, which is no error
	if err != nil {
		t.Fatal(err)
	}
	if b.Path != plain || b.Size != 1 || b.MTime.IsZero() || b.Build != (Build{}) {
		t.Errorf("%+v", b)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
