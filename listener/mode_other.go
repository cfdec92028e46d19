//go:build unix && !linux

package listener

import (
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// setBindMode has nothing to do: fchmod of a socket has no effect here.
func setBindMode(int, fs.FileMode) error { return nil }

var umaskMu sync.Mutex

// maskBindMode makes bind create the socket file with at most these bits. The
// umask belongs to the whole process: files that other goroutines create in
// the meantime get it, too.
func maskBindMode(mode fs.FileMode) (restore func()) {
	umaskMu.Lock()
	old := unix.Umask(int(fs.ModePerm &^ mode))
	return func() {
		unix.Umask(old)
		umaskMu.Unlock()
	}
}
