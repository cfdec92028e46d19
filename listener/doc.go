// Package listener binds, inherits and accepts from stream sockets for a
// process that hands the connections to somebody else.
//
// A [Listener] differs from a [net.Listener] in three ways:
//
//   - Accept gives bare descriptors, non-blocking and close-on-exec, in
//     batches. No [net.Conn] is made for a connection that another process
//     is going to serve.
//   - Room for connections is reserved at a [Gate] before they are accepted.
//     What nobody has room for stays in the kernel's queue, where it survives
//     the death of this process as long as another one holds the socket.
//   - The socket outlives its owner: [Listener.File] is there to be passed on,
//     [FromFile] takes it up, and [Listener.Release] lets go of it without
//     removing the socket file that the next owner serves.
//
// On Linux a [Group] adds sockets to a listener, each with a queue of its own, and
// has the kernel give them new connections in turn.
//
// A [Spec] says what to listen on. [Spec.Validate] finds every mistake at
// once, before anything is bound.
//
// On Windows only Bind, Net, Addr and Close do anything: the rest reports
// [errors.ErrUnsupported].
//
// The package makes no promise of compatibility before v1, except for the
// options ([Name], [Mode], [Owner]) and [Spec].
package listener
