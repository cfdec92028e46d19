package systemd

import (
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// WatchdogTime returns how often, at least, the manager wants to hear of this
// process; 0 if it does not want to. A process that takes over from this one by
// an upgrade inherits the duty and the variable, which then names no process.
func WatchdogTime() time.Duration {
	d, err := daemon.SdWatchdogEnabled(false)
	os.Unsetenv("WATCHDOG_PID")
	if err != nil || d <= 0 {
		os.Unsetenv("WATCHDOG_USEC")
		return 0
	}
	return d
}
