// Package workers supervises worker processes and hands connections to them.
// A [Pool] is the master's side, a [Worker] with its [Listener] values is the
// worker's. What a connection is used for, this package does not know.
//
// # How a connection walks
//
//	kernel's queue
//	   │  acceptor: room is reserved first, and only then is it accepted
//	   ▼
//	dispatcher's queue
//	   │  a policy picks a worker whose window has room; a send never blocks
//	   ▼
//	window of a worker              both processes hold the connection
//	   │  Listener.Accept acknowledges, before a byte has been read
//	   ▼
//	worker's own                    the master closes its copy
//
// A connection has one owner. Until the acknowledgement has been read that is
// the master. A worker that has no room sends the connection back; when one
// dies, everything it still said is read, and what it never acknowledged goes
// to others, oldest first, unless the kernel shows that somebody has read from
// it. Where nobody has room, connections stay in the kernel's queue. A ledger
// for each generation counts what became of them, and its sum is checked.
//
// A draining worker can give a connection back ([Worker.Return]): it is queued
// like a new one, with what has to travel along. The worker keeps its copy until
// another one has claimed the connection, by a token that travels with it: should
// the master die meanwhile, one of the two has it. What an
// application hands off goes the same way, with its state, but to the adopter of
// its listener ([Listener.OnAdopt]), if the serving generation has one.
//
// Tokens were tried in place of connections: the master counts what has arrived
// (tcpi_unacked of the listener, and what the workers have accepted) and tells
// them in rotation to accept one. That passes no descriptor, keeps the counts in
// strict order, and unused tokens can be taken back at any time, since no
// connection is lost with them. But a connection took the same CPU time, within
// the noise: a token wakes the master and a worker, too. A policy cannot choose
// by the client's address, which of two workers with a token gets which
// connection is left to chance, and it takes Linux and TCP.
//
// # How workers accept for themselves
//
// A listener may be accepted on by the workers in place of the master. Each has a
// licence for it then, which comes with the socket, and takes connections from the
// kernel as its application asks for them: those are its own from the first moment,
// and pass no window. The master counts them by what the worker says in the page
// that they share. It licenses those in the rotation, new ones before it takes the
// licences of old ones back, and keeps the sockets: what nobody takes waits there.
// At the end it sweeps the queue itself. What moves goes through the master in any
// case. See licence_unix.go.
//
// The socket is the listener's, or in accept mode kernel one of several at its
// address, each with a queue for one slot. The master takes from those for which
// nobody has a licence, until the end: see queues_unix.go.
//
// # How a worker lives
//
//	starting → ready → serving → draining → exited
//	    └────────┴────────┴─────────┴──→ killed ─┘
//
// It is started from an open file of its binary, introduces itself with what
// it was built and configured for, is welcomed, and says that it is ready. A
// worker is drained when its generation is replaced, when fewer are wanted, or
// when it asks to leave or breaks the protocol. It is killed when it misses a
// deadline or does not answer for long. Death is what the process descriptor
// says, never the end of a socket. A worker that dies unasked is replaced: the
// first time at once, then after a delay that doubles up to ten seconds and is
// forgotten again with time.
//
// # How a generation lives
//
//	starting → ready → serving → draining → gone
//	    └────────┴──→ discarded ─────────────┘
//
// A generation is one binary, one environment and N workers of it. Its first
// worker tells which options its release asks for; the rest are started by
// them. When all are ready it may be committed, and connections go to it from
// one moment to the next, while the one before drains. If any of them fails
// before, the generation is discarded with the reason, and whoever served goes
// on. [Pool.Freeze] and [Pool.Handover] describe a living pool to the master
// that comes next, and [Pool.Adopt] takes it up there.
//
// # How a worker outlives its master
//
//	bonded → orphan → bonded …
//	   └────────┴───→ resigned → bonded (drains)
//
// A pool keeps a record of its workers ([Pool.KeepRecord]), and trusts those that
// serve, and are in it, with copies of the listeners, which sleep. When the master
// dies, they accept for themselves, as much as their application asks for, and
// present themselves where the next master listens. What they were sent and what
// they wanted to give back is theirs: each connection to a master is a link of its
// own, and what belongs to one is never mentioned on another. The next master
// reads the record ([ReadRecord]), believes nobody who does not agree with it in
// every file ([Orphans.Meet]), and adopts them ([Pool.FosterServing],
// [Pool.FosterRest]). A worker that was not trusted, that drains, has been told
// that the service stops, is left alone for too long, or whose leash ends because
// its supervisor will start no master, finishes and leaves.
//
// These state machines are tables; a move that is not listed panics.
//
// # When two builds meet
//
// A master may have workers of another build, hand over to one, or find what one
// has left. What they say to each other has a version, [ProtocolVersion], and a
// build speaks a range of them: see [Versions]. Each tells its own in what it says
// first, and a record and a handover those of their workers, too. Where there is
// none in common, the error wraps [ErrIncompatible] and names both, and it comes
// before anybody is welcomed, adopted or bound. A generation that speaks a later
// version than its master takes a new one ([ErrNeedsMaster]).
//
// # Compatibility
//
// The package can be used alone, but serves the framework first: it promises
// no compatibility of its API before v1.
package workers
