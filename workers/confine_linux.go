package workers

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// cell is a thread whose children can never gain privileges, by set-user-ID
// programs or file capabilities (no_new_privs in prctl(2)). The mark is a thread's,
// inherited by its children and for ever: it ends with the goroutine, which keeps
// it locked.
//
// It is one for the life of the pool. A thread for each start would have to be
// made when a user or a container may be at its limit of them, of which the runtime
// dies.
type cell struct {
	starts chan func(error)
	quit   chan struct{}
}

func newCell() *cell {
	c := &cell{starts: make(chan func(error)), quit: make(chan struct{})}
	up := make(chan struct{})
	go c.live(up)
	<-up
	return c
}

// live closes up once it has a thread.
func (c *cell) live(up chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread never ends. While it is kept here, another does it.
		go c.live(up)
		<-up
		runtime.UnlockOSThread()
		return
	}
	close(up)
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	for {
		select {
		case f := <-c.starts:
			f(err)
		case <-c.quit:
			return
		}
	}
}

// confined calls start on that thread.
func (c *cell) confined(start func() error) error {
	result := make(chan error, 1)
	select {
	case c.starts <- func(err error) {
		if err == nil {
			err = dumpable(start)
		}
		result <- err
	}:
		return <-result
	case <-c.quit:
		return ErrStopped
	}
}

func (c *cell) close() { close(c.quit) }

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
