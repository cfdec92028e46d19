package workers

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// BePatient has this process, a master or a worker, preempt nobody when it wakes
// (SCHED_BATCH): on a busy machine it finds several connections, acknowledgements or
// requests each time, where it would otherwise take the CPU from a worker, or from
// the client, for each. Where a CPU is idle it runs as soon as ever.
//
// Of workers, in their own sessions and the clients in another, so that the kernel
// schedules them by group, 32 clients with a connection for each request and two
// CPUs: 3.1 switches a request become 0.9 in mode master, 4.1 become 0.7 in mode
// kernel, and 0.55 of net/http's requests a second 0.93, 0.50 become 1.04.
//
// Of the master, beside net/http on two busy CPUs, in interleaved rounds: with 32 clients and a
// connection for each request, all processes took 1.40 times its CPU time with it
// and 1.54 without, the master 27 µs a connection and 38. A lone client waited
// 259 µs in the median with it and 285 without, the hundredth 9.6 ms and 10.2.
// Fewer threads, by GOMAXPROCS=1, took another 3 µs off, and would be the limit
// of a large machine.
//
// Workers do not inherit it, but decide for themselves. A policy other than the
// default was somebody's choice and stays, as it does where changing it is
// forbidden.
func BePatient() {
	// A thread that has not been asked yet makes others like itself.
	for range patientPasses {
		changed := false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range tasks {
			if tid, err := strconv.Atoi(t.Name()); err == nil && reschedule(tid, unix.SCHED_NORMAL, unix.SCHED_BATCH) {
				changed = true
			}
		}
		if !changed {
			return
		}
	}
}

const patientPasses = 10

// reschedule changes the policy of a thread, 0 for the caller's, and nothing
// else, if it is from. It says whether it has.
func reschedule(tid int, from, to uint32) bool {
	a, err := unix.SchedGetAttr(tid, 0)
	if err != nil || a.Policy != from {
		return false
	}
	a.Policy = to
	return unix.SchedSetAttr(tid, a, 0) == nil
}

// impatiently calls f on a thread whose children are scheduled as ever.
func impatiently(f func() error) error {
	runtime.LockOSThread() // the runtime makes no threads of this one meanwhile
	defer runtime.UnlockOSThread()
	if reschedule(0, unix.SCHED_BATCH, unix.SCHED_NORMAL) {
		defer reschedule(0, unix.SCHED_NORMAL, unix.SCHED_BATCH)
	}
	return f()
}
