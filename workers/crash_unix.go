//go:build unix

package workers

import (
	"fmt"
	"os"
	"runtime/debug"
)

// setCrashOutput makes the runtime write the trace of a crash into f too, a
// file that the master holds and reads when the worker is dead.
func setCrashOutput(f *os.File) error {
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("crash output: %w", err)
	}
	return f.Close() // the runtime has its own copy
}
