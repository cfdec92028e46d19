package workers

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// confined calls start on a thread whose children can never gain privileges,
// by set-user-ID programs or file capabilities (no_new_privs in prctl(2)). The
// mark is a thread's, inherited by its children and for ever: the thread ends
// with the goroutine, which keeps it locked.
func confined(start func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends. While it is kept here, another does it.
			result <- confined(start)
			runtime.UnlockOSThread()
			return
		}
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = dumpable(start)
		}
		result <- err
	}()
	return <-result
}

// dumpable calls start, and lets this process be looked into afterwards as
// before, by the next master among others. A child shares its memory until it
// executes, and the mark that the kernel makes there when it becomes another
// user (prctl(2), PR_SET_DUMPABLE).
func dumpable(start func() error) error {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || before != 1 {
		return start()
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	return start()
}
