//go:build unix

package framework

import (
	"os"
	"strings"

	"github.com/baton-go/baton/internal/rundir"
	"github.com/baton-go/baton/workers"
)

// desert is the last thing that a worker does if no master is left: the last of
// them removes what a master removes otherwise.
func desert(o *options, w *workers.Worker) error {
	socket := w.Deserted()
	if socket == "" {
		return nil
	}
	return rundir.Desert(socket, func(record []byte) []byte {
		left, err := workers.ReadRecord(record, func(pid int) bool { return pid == os.Getpid() })
		if err != nil {
			return nil
		}
		defer left.Close()
		if len(left.Missing()) > 0 {
			return left.Without(os.Getpid())
		}
		for _, spec := range left.Abandoned(nil) {
			if f := leftover(spec); f.info != nil && !f.heard() {
				f.remove()
			}
		}
		if o.PIDFile != "" {
			_ = rundir.RemovePIDFile(o.PIDFile, left.Master())
		}
		return nil
	})
}

// heard says whether somebody listens there, or might: the orphans have given their
// listeners up some time ago, and the place may be another service's.
func (f socketFile) heard() bool {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil || f.info.Mode().Type() != os.ModeSocket {
		return true
	}
	const listens = "00010000"
	for line := range strings.Lines(string(table)) {
		// Number, references, protocol, flags, type, state, inode, path.
		c := strings.Fields(line)
		if len(c) < 8 || c[3] != listens {
			continue
		}
		if info, err := os.Lstat(c[7]); c[7] == f.path || err == nil && os.SameFile(info, f.info) {
			return true
		}
	}
	return false
}
