package listener

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// setBindMode makes bind create the socket file with at most these bits: Linux
// takes them from the socket's own inode, less the umask. Unlike a change of
// the umask it concerns nobody else in the process.
func setBindMode(fd int, mode fs.FileMode) error { return unix.Fchmod(fd, uint32(mode)) }

// maskBindMode has nothing to do: see setBindMode.
func maskBindMode(fs.FileMode) (restore func()) { return func() {} }
