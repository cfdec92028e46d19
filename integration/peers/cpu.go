//go:build linux

package peers

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Tick is the unit of times in /proc, USER_HZ.
const Tick = time.Second / 100

// CPUTime is what the process and those of its children that it has waited for
// have used, user and system; 0 for a process that is gone.
func CPUTime(pid int) time.Duration {
	// The clock of another process, as clock_getcpuclockid(3) makes it: /proc has
	// the same in ticks only, which are too long for a second of light load.
	const sched = 2
	var own unix.Timespec
	f := statFields(pid)
	if len(f) < 15 || unix.ClockGettime(int32(^pid<<3|sched), &own) != nil {
		return 0
	}
	sum := time.Duration(own.Nano())
	for _, ticks := range f[13:15] { // cutime cstime
		n, _ := strconv.Atoi(ticks)
		sum += time.Duration(n) * Tick
	}
	return sum
}
