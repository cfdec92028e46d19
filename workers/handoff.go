package workers

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Why a connection was not handed off. It still is its owner's.
var (
	ErrForeign    = errors.New("handoff: not a connection that can be handed off")
	ErrTooLarge   = errors.New("handoff: too large")
	ErrInUse      = errors.New("handoff: a Read or a Write is in progress")
	ErrNobody     = errors.New("handoff: nobody serves who could take it")
	ErrNotAdopted = errors.New("handoff: the serving generation adopts none from this listener")

	errBusy = errors.New("handoff: there is no room for it now")
	errLate = fmt.Errorf("handoff: not taken within %v: %w", handoffTime, os.ErrDeadlineExceeded)
)

// handoffTime is how long a connection waits to be taken. It stands still
// meanwhile, and a master that is well takes thousands in a second.
const handoffTime = 10 * time.Second

// handoffPause is between attempts, while there is no room.
const handoffPause = 50 * time.Millisecond

// Why a connection that is offered to the master stays its worker's: the last
// byte of msgKeep.
const (
	keptUnserved  uint8 = iota // no worker serves, or the service ends
	keptUnadopted              // the serving generation adopts none from its listener
	keptLate                   // there is no room for it now
)

func keptFor(why uint8) error {
	switch why {
	case keptUnadopted:
		return ErrNotAdopted
	case keptLate:
		return errBusy
	}
	return ErrNobody
}
