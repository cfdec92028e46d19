//go:build linux

package peers

import (
	"strconv"
	"time"
)

// Tick is the unit of times in /proc, USER_HZ.
const Tick = time.Second / 100

// CPUTime is what the process and those of its children that it has waited for
// have used, user and system; 0 for a process that is gone.
func CPUTime(pid int) time.Duration {
	f := statFields(pid)
	if len(f) < 15 {
		return 0
	}
	var sum time.Duration
	for _, ticks := range f[11:15] { // utime stime cutime cstime
		n, _ := strconv.Atoi(ticks)
		sum += time.Duration(n) * Tick
	}
	return sum
}
