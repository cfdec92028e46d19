//go:build unix && !linux

package control

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

var umaskMu sync.Mutex

// bindPrivate binds path with no moment at which others could connect. The
// umask is the process's: a file that another goroutine makes in this moment
// comes out with fewer permissions, never with more.
func bindPrivate(path string) (*net.UnixListener, error) {
	umaskMu.Lock()
	defer umaskMu.Unlock()
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return listenUnix(path, func(int) error { return nil })
}
