package framework

import (
	"fmt"
	"os"
	"slices"

	"github.com/baton-go/baton/upgrade"
	"github.com/baton-go/baton/workers"
)

// runInit is Run in PID 1. It exits by itself, so that the status of the
// container is the master's whatever main makes of an error.
func runInit(o *options) error {
	logs, flush := asyncLogger(o.logger)
	catchPipe()
	status, err := upgrade.RunInit(upgrade.InitOptions{
		Argv: slices.Clone(os.Args), Dir: workingDir, StopTimeout: o.StopTimeout, Log: logs,
		// The file that is on disk now, as for a generation.
		Binary: func() (string, error) { return workers.FindBinary(os.Args[0], workingDir) },
	})
	flush()
	if err != nil {
		return fmt.Errorf("baton: %w", err)
	}
	os.Exit(status)
	return nil
}
