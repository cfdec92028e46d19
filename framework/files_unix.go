//go:build unix

package framework

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
)

// What a master has open itself: the standard files, lock, control socket and
// its connections, the poller, and the pipes of an upgrade; and three for each
// listener, which tableflip and the accept loop have copies of.
const (
	masterFiles   = 32
	listenerFiles = 3
	groupFiles    = 5 // program and maps of a listener.Group, beside its sockets
)

// checkFiles compares RLIMIT_NOFILE, which the runtime has raised to the hard
// limit, with what a master of these options needs. What is too low for it to
// work is an error, what it may run into is logged.
func checkFiles(o *options, cpus int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil // the limit will tell by itself
	}
	n := o.workerOptions(cpus).Workers
	least, most := workers.FilesNeeded(n, o.MaxDraining)
	own := masterFiles + listenerFiles*len(o.Listeners)
	for _, mode := range o.accepted() {
		if mode == listener.AcceptByKernel || mode == listener.AcceptOnlyByKernel {
			own += n - 1 + groupFiles
		}
	}
	least, most = least+own, most+own
	have := uint64(limit.Cur)
	what := fmt.Sprintf("a master of %s and %s", count(n, "worker"), count(len(o.Listeners), "listener"))
	switch {
	case have < uint64(least):
		return configError([]string{fmt.Sprintf("RLIMIT_NOFILE=%d: expected at least %d, which %s needs to work; %d are comfortable",
			have, least, what, most)})
	case have < uint64(most):
		o.logger.Warn(fmt.Sprintf("RLIMIT_NOFILE=%d is low: %s may use up to %d descriptors at a time", have, what, most))
	}
	return nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
