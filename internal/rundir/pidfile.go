//go:build unix

package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/renameio/v2"
)

// WritePIDFile writes pid to path, mode 0644, such that a reader finds the old
// content or the new one and never half of it.
func WritePIDFile(path string, pid int) error {
	err := renameio.WriteFile(path, []byte(strconv.Itoa(pid)+"\n"), 0o644,
		renameio.WithStaticPermissions(0o644),
		// Beside the file: the default probes $TMPDIR by making files there.
		renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("pid file %s: %w", path, err)
	}
	return nil
}

// RemovePIDFile removes the file at path if it names pid, and nothing otherwise:
// it may be the successor's by now. Nothing there is no error.
func RemovePIDFile(path string, pid int) error {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("pid file: %w", err)
	case parsePID(b) != pid:
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}
