// Package dispatch decides which worker gets a connection.
//
// A [Policy] is pure: it sees numbers and returns one. It does no I/O, waits
// for nothing and keeps no connection, so that a master can ask it millions of
// times and a test can ask it everything. [RoundRobin] is the default; a policy
// of one's own is any type with the two methods.
package dispatch

// Conn is what a policy may know of a connection. It has not been read from.
type Conn struct {
	// Listener is the index of the listener that it arrived at.
	Listener int
	// ID is unique within the life of a master, and grows.
	ID uint64
}

// Worker is what a policy may know of a worker.
type Worker struct {
	// Slot is the worker's place in its generation, from 1. A worker that is
	// respawned keeps the slot of the one it replaces.
	Slot int
	// Free is the room left in its window of unacknowledged connections. A
	// worker with Free 0 must not be picked.
	Free int
	// Open is how many connections it has open, as far as is known.
	Open int
}

// Policy picks a worker for a connection.
type Policy interface {
	// Name is how logs, status and options call the policy.
	Name() string
	// Pick returns an index into ws, or -1 when no worker has room; the
	// connection then waits. The workers come in the order of their slots and
	// may differ from call to call: workers die, are respawned and are
	// replaced by a new generation. ws belongs to the caller and must not be
	// kept or changed.
	//
	// Pick is called under a lock, never by two goroutines at once. It must
	// not block or do I/O, and should not allocate. An index that is out of
	// range or names a worker without room counts as -1.
	Pick(c Conn, ws []Worker) int
}
