//go:build unix

package framework

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// pidFileProblem says why the pid file cannot be written, "" if it can. It may be
// in the runtime directory, which is made later.
func (o *options) pidFileProblem(runtimeDir string) string {
	if o.PIDFile == "" {
		return ""
	}
	dir := filepath.Dir(o.PIDFile)
	// The slash, since a program passes for a directory that can be searched.
	err := unix.Faccessat(unix.AT_FDCWD, dir+"/", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, fs.ErrNotExist) && dir == runtimeDir {
		return ""
	}
	said := o.source("PIDFile", strconv.Quote(o.PIDFile))
	if err != nil {
		return fmt.Sprintf("%s: directory %s: %v: expected one that exists and that this process can write to", said, dir, err)
	}
	if info, err := os.Lstat(o.PIDFile); err == nil && info.IsDir() {
		return said + ": it is a directory: expected a file, or nothing yet"
	}
	return ""
}
