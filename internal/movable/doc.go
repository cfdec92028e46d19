// Package movable takes a plain HTTP/1 connection away from net/http at a
// moment when none of its bytes are in net/http's hands, so that the descriptor
// can be served by another process and the client notices nothing.
//
// # The proof
//
// net/http reads a connection through a bufio.Reader and tells nobody what it
// has buffered. It is known all the same, from the calls that it makes of the
// connection (net/http/server.go of Go 1.26, conn.serve):
//
//   - A new connection: until Read has returned a byte, net/http has none. How
//     long the slice is (4,096 bytes, or 14 with unencrypted HTTP/2 enabled,
//     which limits the read to the length of its preface) and whether a
//     deadline was set before (only with a ReadHeaderTimeout or a ReadTimeout)
//     do not matter.
//   - After an answer: StateIdle, SetReadDeadline, Peek(4). With nothing
//     buffered, Peek reads into the whole buffer: len(p) is 4096. With one to
//     three bytes buffered it reads behind them: len(p) is less; that is so as
//     well for the byte that the background reader of a running handler has
//     got, which is put into the buffer by a call that does not reach us. With
//     four bytes or more, Peek does not read at all: net/http goes on to a
//     second SetReadDeadline, for the header, and what it reads then may again
//     be the whole buffer, for instance after exactly one line.
//
// So: the first Read since StateIdle, with a slice of 4096 and exactly one
// SetReadDeadline since StateIdle. Both SetReadDeadline calls are made whatever
// the timeouts are; without one they clear the deadline. ConnState does not
// help any further: StateActive comes only when a whole header has been read.
//
// HTTP/2 without TLS reports StateIdle, too, and reads frames of any length: a
// connection that began with its preface is never parked.
//
// A connection under TLS cannot be taken away, since the other side has keys in
// this process. It is parked for CloseParked only: see [Conn.UnderTLS].
//
// [SelfTest] holds the net/http that is compiled in to all this, but for TLS:
// where that rule is not kept to, a connection only looks busy.
package movable
