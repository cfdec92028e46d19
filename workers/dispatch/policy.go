// Package dispatch decides which worker gets a connection.
//
// A [Policy] is pure: it sees numbers and returns one. It does no I/O, waits
// for nothing and keeps no connection, so that a master can ask it millions of
// times and a test can ask it everything. [RoundRobin] is the default;
// [Weighted], [LeastConnections] and [Hash] are the others, and a policy of
// one's own is any type with the two methods.
//
// # A policy of one's own
//
// It runs in the master, which may have been started from an older binary than
// its workers. A release therefore asks for its policy by name. A master that
// does not have a policy of that name makes an upgrade of the reload; one that
// has goes on with the code it was started with. So a policy whose behaviour
// changes takes another name, or is deployed by an upgrade.
//
// What it needs to know beyond slots and room it says by the methods of
// [ByClient], [ByOpen] and [ByWeight]; to find that out costs the master
// something. One that asks another policy in its turn says what that one needs,
// too.
//
// The master believes it no more than it must. An answer that is no worker with
// room sends the connection to the next one in round-robin, if anybody has room.
// A panic is logged, and round-robin is used in its place until a generation
// with another policy serves.
package dispatch

import (
	"errors"
	"net/netip"
	"strings"
)

// Conn is what a policy may know of a connection. It has not been read from.
type Conn struct {
	// Listener is the index of the listener that it arrived at.
	Listener int
	// ID is unique within the life of a master, and grows.
	ID uint64
	// Client is where it comes from, for a policy that is [ByClient]; an IPv4
	// address is one, however it has arrived. It is not valid where there is no
	// such address: for Unix sockets, and once the client has reset the
	// connection.
	Client netip.AddrPort
}

// Worker is what a policy may know of a worker.
type Worker struct {
	// Slot is the worker's place in its generation, from 1. A worker that is
	// respawned keeps the slot of the one it replaces.
	Slot int
	// Free is the room left in its window of unacknowledged connections. A
	// worker with Free 0 must not be picked.
	Free int
	// Open is how many connections it has. The unacknowledged ones are counted
	// by the master; for a policy that is [ByOpen] those that it says it has
	// open come on top, as of the last millisecond. A connection can count twice
	// while its acknowledgement is on the way.
	Open int
	// Weight is from 0 to MaxWeight: as set by an operator, else as a policy
	// that is [ByWeight] has it, else 1.
	Weight int
}

// MaxWeight is the largest weight.
const MaxWeight = 1000

// Policy picks a worker for a connection.
type Policy interface {
	// Name is how logs, status and options call the policy, parameters included.
	// It never changes.
	Name() string
	// Pick returns an index into ws, or -1 when no worker has room; the
	// connection then waits. The workers come in the order of their slots and
	// may differ from call to call: workers die, are respawned and are
	// replaced by a new generation. ws belongs to the caller and must not be
	// kept or changed.
	//
	// Pick is called under a lock, never by two goroutines at once. It must
	// not block or do I/O, and should not allocate.
	Pick(c Conn, ws []Worker) int
}

// ByClient is a policy that looks at Conn.Client, which costs the master a
// system call for each connection.
type ByClient interface {
	Policy
	ByClient()
}

// ByOpen is a policy that looks at what workers say in Worker.Open, which costs
// the master a system call for each worker, once a millisecond at most. Nobody can
// check what they say, beyond that it is no negative number.
type ByOpen interface {
	Policy
	ByOpen()
}

// ByWeight is a policy that looks at Worker.Weight. Only under such a one can
// an operator change weights.
type ByWeight interface {
	Policy
	// Weight is what a slot has until somebody changes it. What is below 0 or
	// above MaxWeight counts as that.
	Weight(slot int) int
}

// ErrUnknown is wrapped by the errors of Parse for names that no policy of this
// package has.
var ErrUnknown = errors.New("expected round-robin, weighted, least-connections or hash")

// Parse returns the policy of this package that is called name: round-robin,
// weighted, least-connections or hash; or, with parameters, weighted:3,1. Other
// errors than ErrUnknown are about the parameters, and say what was expected.
func Parse(name string) (Policy, error) {
	kind, parameters, given := strings.Cut(name, ":")
	if kind == nameWeighted {
		return parseWeighted(parameters, given)
	}
	for _, p := range []Policy{RoundRobin(), LeastConnections(), Hash()} {
		if p.Name() != kind {
			continue
		}
		if given {
			return nil, errors.New("expected " + kind + " without parameters")
		}
		return p, nil
	}
	return nil, ErrUnknown
}
