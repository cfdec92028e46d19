package framework

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/baton-go/baton/internal/movable"
	"github.com/baton-go/baton/workers"
)

// What can travel with a connection at most, in bytes.
const (
	MaxHandoffUnread = workers.MaxUnread // 16 KiB
	MaxHandoffState  = workers.MaxState  // 15 KiB
)

// What Handoff returns, beside net.ErrClosed for a connection that was closed or
// handed off before, and os.ErrDeadlineExceeded when the serving workers did not
// take it in time. Match them with errors.Is.
var (
	// ErrHandoffConn: not a connection of ours. One under TLS cannot be handed
	// off, for its keys are in this process; one in a wrapper of the
	// application's has to be taken out of it.
	ErrHandoffConn = workers.ErrForeign

	// ErrHandoffTooLarge: more than MaxHandoffState or MaxHandoffUnread bytes.
	ErrHandoffTooLarge = workers.ErrTooLarge

	// ErrHandoffInUse: a Read or a Write is in progress.
	ErrHandoffInUse = workers.ErrInUse

	// ErrHandoffNobody: there is nobody to hand it to. The service stops, its
	// master is gone, no worker serves at the moment, or this is a single
	// process.
	ErrHandoffNobody = workers.ErrNobody

	// ErrHandoffNotAdopted: the serving generation has no OnAdopt for the
	// listener that the connection came from.
	ErrHandoffNotAdopted = workers.ErrNotAdopted
)

// Handoff gives a connection to a worker of the serving generation, where the
// function of [OnAdopt] goes on with it: typically when this worker drains, at
// the boundary of a message. unread is what was read from c and belongs to the
// next message, the rest of a bufio.Reader for instance; state is whatever the
// other worker must know. Neither is kept.
//
// c is what Accept of a Serve function's listener returned, what an HTTP/1
// handler has hijacked, or what OnAdopt was given. Nobody may be using it: a
// Read that waits is ended by SetReadDeadline before, see [OnDrain], and writers
// are finished.
//
// When it returns nil, the connection is another worker's. c reads as ended,
// writing to it fails or is discarded, and its Close does nothing. After an error
// it is still the caller's and goes on as before, with the deadlines that the
// caller has set.
//
// Connections wait for each other, 32 of a worker are on their way at a time,
// and for the workers that are to take them, ten seconds at most: longer only if
// the master stands still, since it alone can tell whose the connection is.
func Handoff(c net.Conn, unread, state []byte) error {
	mc, ok := c.(*movable.Conn)
	if !ok {
		return handoff(c, unread, state)
	}
	inner, pending, err := mc.Release()
	if errors.Is(err, movable.ErrReading) {
		return ErrHandoffInUse
	}
	if err != nil {
		return fmt.Errorf("handoff: %w", err)
	}
	// Nobody has read what is pending yet, so it comes after what somebody has.
	if err := handoff(inner, slices.Concat(unread, pending), state); err != nil {
		mc.Restore()
		return err
	}
	mc.Left()
	return nil
}

func handoff(c net.Conn, unread, state []byte) error {
	switch c := c.(type) {
	case interface {
		Handoff(unread, state []byte) error
	}: // a worker's
		return c.Handoff(unread, state)
	case *singleConn:
		if c.closed.Load() {
			return fmt.Errorf("handoff: %w", net.ErrClosed)
		}
		return ErrHandoffNobody
	}
	return ErrHandoffConn
}
