package listener

import (
	"errors"
	"fmt"
	"syscall"
)

// Gate says how many connections there is room for. Accept asks it before it
// takes anything from the kernel's queue, so that what cannot be placed is
// never taken. Its methods are called from inside Accept and must not block.
type Gate interface {
	// Reserve sets aside room for at most max connections and returns for how
	// many; 0 when there is none.
	Reserve(max int) int
	// Refund gives back room that Reserve set aside and nobody came for.
	Refund(n int)
}

var (
	// ErrNoRoom is returned by Accept when the Gate has no room. The
	// connections are still in the kernel's queue: call again when there is.
	ErrNoRoom = errors.New("listener: no room for connections")

	// ErrFDLimit is wrapped by every [ErrFull].
	ErrFDLimit = errors.New("listener: out of file descriptors or memory")
)

// ErrFull is returned by Accept when a connection waits and the system has no
// descriptor or memory for it: EMFILE, ENFILE, ENOMEM or ENOBUFS. Nothing is
// lost, the connection stays in the queue: back off and call again.
type ErrFull struct{ Errno syscall.Errno }

func (e ErrFull) Error() string { return fmt.Sprintf("%v: %v", ErrFDLimit, e.Errno) }

// Unwrap matches both [ErrFDLimit] and the errno itself.
func (e ErrFull) Unwrap() []error { return []error{ErrFDLimit, e.Errno} }
