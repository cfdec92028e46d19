//go:build unix

package workers

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Binary is an executable pinned by an open file: it can be started for as
// long as it is held, whatever happens to its path.
type Binary struct {
	Path  string    `json:"path"`
	Size  int64     `json:"size"`
	MTime time.Time `json:"mtime"`
	Build Build     `json:"build"`

	file *os.File
}

// FindBinary returns the path that argv0 means: as a shell would find it, with
// relative paths taken from dir. Symbolic links are left in, so that a link
// which has been moved since leads to the new release.
func FindBinary(argv0, dir string) (string, error) {
	if filepath.Base(argv0) == argv0 {
		path, err := exec.LookPath(argv0)
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return "", err
		}
		argv0 = path
	}
	if !filepath.IsAbs(argv0) {
		argv0 = filepath.Join(dir, argv0)
	}
	return filepath.Clean(argv0), nil
}

// Pin opens the executable at path. The error says what is wrong with it.
func Pin(path string) (*Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("new binary: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("new binary: %w", err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("new binary %s is not a regular file (%s)", path, info.Mode().Type())
	}
	if info.Mode().Perm()&0o111 == 0 || unix.Access(path, unix.X_OK) != nil {
		f.Close()
		return nil, fmt.Errorf("new binary %s is not executable (mode %s)", path, info.Mode().Perm())
	}
	b := &Binary{Path: path, Size: info.Size(), MTime: info.ModTime(), file: f}
	// Not being a Go binary is no error: the attempt to start it tells.
	if bi, err := buildinfo.Read(f); err == nil {
		b.Build = Build{GoVersion: bi.GoVersion, Module: bi.Main.Path, Version: bi.Main.Version}
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Build.Revision = s.Value
			case "vcs.modified":
				b.Build.Modified = s.Value == "true"
			}
		}
	}
	return b, nil
}

// adoptBinary takes over one that an earlier master pinned.
func adoptBinary(b Binary, f *os.File) *Binary {
	b.file = f
	return &b
}

// again is the same executable, pinned once more.
func (b *Binary) again() (*Binary, error) {
	f, err := dupFile(b.file)
	if err != nil {
		return nil, err
	}
	other := *b
	other.file = f
	return &other, nil
}

// Close gives the executable up.
func (b *Binary) Close() error { return b.file.Close() }
