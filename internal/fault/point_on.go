//go:build baton_fault

package fault

import (
	"os"
	"slices"
	"strings"
	"syscall"
)

// fileEnv names a file whose content is the moment at which to die.
const fileEnv = "TESTAPP_FAULT_FILE"

// path outlives the environment, which is read anew by each generation.
var path = os.Getenv(fileEnv)

// Point kills this process if it is to die at that moment, which it does once:
// the file is gone then.
func Point(moment string) {
	if !slices.Contains(Moments, moment) {
		panic("fault: " + moment + " is not listed")
	}
	if path == "" {
		return
	}
	wanted, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(wanted)) != moment || os.Remove(path) != nil {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
