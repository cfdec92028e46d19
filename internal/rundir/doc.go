// Package rundir is the runtime directory of a service: a private directory
// that holds the control socket, the lock by which one master at a time lives,
// and what a killed one leaves to the next; and the PID file beside it.
//
// Everything in it decides who may command a master, so every step refuses what
// another user could have prepared: directories that are somebody else's or that
// others may write to, and symbolic links in place of files.
package rundir

import "path/filepath"

const (
	socketName = "control.sock"
	lockName   = "lock"
	recordName = "workers.json"
	adoptName  = "adopt.sock"
)

// SocketPath is the control socket's path in the runtime directory dir.
func SocketPath(dir string) string { return filepath.Join(dir, socketName) }
