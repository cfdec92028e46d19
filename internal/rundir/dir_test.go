//go:build unix

package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpenMakesAPrivateDirectory(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(private(t), "a", "b", "c")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if d.Path() != path || d.Socket() != path+"/control.sock" {
		t.Errorf("have %q, %q", d.Path(), d.Socket())
	}
	for p := path; filepath.Base(p) != "a"; p = filepath.Dir(p) {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: have %v, %v", p, fi.Mode(), err)
		}
	}
	if _, err := Open(path); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestOpenAcceptsWhatOthersCannotChange(t *testing.T) {
	uid := os.Geteuid()
	for _, tt := range []struct {
		name string
		make func(t *testing.T, base string) string
	}{
		{"made by systemd", func(t *testing.T, b string) string { return mkdir(t, 0o755, b, "run") }},
		{"in a sticky directory", func(t *testing.T, b string) string {
			return filepath.Join(mkdir(t, 0o777|fs.ModeSticky, b, "tmp"), "run")
		}},
		{"own family in a sticky directory", func(t *testing.T, b string) string {
			mkdir(t, 0o777|fs.ModeSticky, b, "tmp")
			return filepath.Join(b, "tmp", familyOf(uid), "app")
		}},
		{"behind a link, as with DynamicUser", func(t *testing.T, b string) string {
			target := mkdir(t, 0o755, b, "target")
			if err := os.Symlink(target, filepath.Join(b, "link")); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(b, "link")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Open(tt.make(t, private(t))); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenRefusesWhatOthersCouldChange(t *testing.T) {
	uid := os.Geteuid()
	for _, tt := range []struct {
		name string
		make func(t *testing.T, base string) string
		want []string // parts of the error besides the path
	}{
		{"group may write", func(t *testing.T, b string) string { return mkdir(t, 0o770, b, "run") },
			[]string{"has mode 0770, expected at most 0755"}},
		{"all may write", func(t *testing.T, b string) string { return mkdir(t, 0o777, b, "run") },
			[]string{"has mode 0777"}},
		{"all may write, sticky", func(t *testing.T, b string) string { return mkdir(t, 0o777|fs.ModeSticky, b, "run") },
			[]string{"has mode 0777"}},
		{"a file", func(t *testing.T, b string) string {
			p := filepath.Join(b, "run")
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return p
		}, []string{"expected a directory"}},
		{"parent without sticky bit", func(t *testing.T, b string) string { mkdir(t, 0o777, b, "tmp"); return filepath.Join(b, "tmp", "run") },
			[]string{"parent", "has mode 0777, expected it not to be writable by group and others, or sticky"}},
		{"family that others may read", func(t *testing.T, b string) string {
			return filepath.Join(mkdir(t, 0o755, b, familyOf(uid)), "app")
		}, []string{familyOf(uid), "has mode 0755, expected at most 0700"}},
		{"leaf in the family that others may read", func(t *testing.T, b string) string {
			mkdir(t, 0o700, b, familyOf(uid))
			return mkdir(t, 0o755, b, familyOf(uid), "app")
		}, []string{"has mode 0755, expected at most 0700"}},
		{"link to an open directory", func(t *testing.T, b string) string {
			if err := os.Symlink(mkdir(t, 0o777, b, "target"), filepath.Join(b, "link")); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(b, "link")
		}, []string{"target", "has mode 0777"}},
		{"dangling link", func(t *testing.T, b string) string {
			if err := os.Symlink(filepath.Join(b, "no"), filepath.Join(b, "link")); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(b, "link")
		}, []string{"link"}},
		{"below a file", func(t *testing.T, b string) string {
			if err := os.WriteFile(filepath.Join(b, "f"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(b, "f", "run")
		}, []string{"not a directory"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := private(t)
			d, err := Open(tt.make(t, base))
			if err == nil {
				t.Fatalf("accepted %s", d.Path())
			}
			for _, w := range append(tt.want, base) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("have %q, want %q in it", err, w)
				}
			}
		})
	}
}

// Who runs the tests cannot always give files away, but can always look at its
// own with another user's eyes.
func TestOpenRefusesDirectoriesOfOthers(t *testing.T) {
	uid := os.Geteuid()
	const other = 4321
	own := mkdir(t, 0o700, private(t), "run")
	want := fmt.Sprintf("is owned by uid %d, expected uid %d", uid, other)
	if err := checkOwn(own, other, 0o755); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("own directory: have %v, want %q", err, want)
	}
	if uid != 0 {
		// Root's directories are there to look at: /usr lies in root's own /.
		if _, err := Open("/usr"); err == nil || !strings.Contains(err.Error(), "is owned by uid 0") {
			t.Errorf("/usr: have %v", err)
		}
		return
	}
	give := func(p string) string {
		if err := os.Lchown(p, other, other); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, path := range map[string]string{
		"leaf":              give(mkdir(t, 0o700, private(t), "run")),
		"parent":            filepath.Join(give(mkdir(t, 0o755, private(t), "theirs")), "run"),
		"prepared family":   filepath.Join(give(mkdir(t, 0o700, mkdir(t, 0o777|fs.ModeSticky, private(t), "tmp"), familyOf(uid))), "app"),
		"somebody's link":   "",
		"to somebody's dir": "",
	} {
		switch name {
		case "somebody's link":
			b := mkdir(t, 0o777|fs.ModeSticky, private(t), "tmp")
			path = filepath.Join(b, "link")
			if err := os.Symlink(mkdir(t, 0o700, private(t), "run"), path); err != nil {
				t.Fatal(err)
			}
			give(path)
		case "to somebody's dir":
			path = filepath.Join(private(t), "link")
			if err := os.Symlink(give(mkdir(t, 0o700, private(t), "run")), path); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "owned by uid 4321, expected uid 0") {
			t.Errorf("%s: have %v", name, err)
		}
	}
}

func TestOpenRefusesAPathTooLongForASocket(t *testing.T) {
	base := "/tmp/"
	fits := base + strings.Repeat("x", maxSocketPath-len(base)-len("/control.sock"))
	if _, err := Open(fits + "y"); !errors.Is(err, errTooLong) ||
		!strings.Contains(err.Error(), fmt.Sprintf("has %d bytes, expected at most %d", maxSocketPath+1, maxSocketPath)) {
		t.Errorf("have %v", err)
	}
	if exists(t, fits+"y") {
		t.Error("the directory was made all the same")
	}
	d, err := Open(fits)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil || exists(t, fits) {
		t.Errorf("remove: %v", err)
	}
}

func TestOpenPassesErrorsOfTheSystemThrough(t *testing.T) {
	// Nobody, not even root, makes a directory in /proc.
	if _, err := Open("/proc/baton-test/run"); err == nil ||
		!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		t.Errorf("have %v", err)
	}
}

func TestRemoveTakesOnlyWhatIsOurs(t *testing.T) {
	socket := func(d *Dir) {
		if err := os.WriteFile(d.Socket(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock := func(d *Dir) *Lock {
		l, err := d.Lock()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	t.Run("made by us", func(t *testing.T) {
		d := open(t)
		l := lock(d)
		socket(d)
		if err := d.Remove(); err != nil || exists(t, d.Path()) {
			t.Errorf("have %v", err)
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	})
	t.Run("without a lock", func(t *testing.T) {
		d := open(t)
		socket(d)
		if err := d.Remove(); err != nil || exists(t, d.Path()) {
			t.Errorf("have %v", err)
		}
		if err := d.Remove(); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	t.Run("there before us", func(t *testing.T) {
		d, err := Open(mkdir(t, 0o755, private(t), "run"))
		if err != nil {
			t.Fatal(err)
		}
		lock(d)
		socket(d)
		if err := d.Remove(); err != nil || !exists(t, d.Path()) || exists(t, d.Socket()) || exists(t, d.Path()+"/lock") {
			t.Errorf("have %v", err)
		}
	})
	t.Run("made by our predecessor in a default place", func(t *testing.T) {
		path := mkdir(t, 0o700, mkdir(t, 0o700, private(t), family), "app-1")
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(); err != nil || exists(t, path) {
			t.Errorf("have %v", err)
		}
	})
	t.Run("with somebody's file", func(t *testing.T) {
		d := open(t)
		lock(d)
		if err := os.WriteFile(filepath.Join(d.Path(), "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(); err != nil || !exists(t, filepath.Join(d.Path(), "x")) {
			t.Errorf("have %v", err)
		}
	})
	t.Run("held by another process", func(t *testing.T) {
		d := open(t)
		c := spawn(t, "hold", d.Path())
		c.says(t, "held")
		socket(d)
		if err := d.Remove(); err != nil || !exists(t, d.Socket()) || !exists(t, d.Path()+"/lock") {
			t.Errorf("have %v", err)
		}
		c.end(t)
	})
}
