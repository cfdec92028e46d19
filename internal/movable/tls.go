package movable

import (
	"encoding/binary"
	"time"
)

// UnderTLS says that net/http serves a *tls.Conn above this connection. It must
// be called before anything is read, and State then with the states of the
// *tls.Conn.
//
// Such a connection is parked if nothing has been read beneath TLS since
// net/http last set the read deadline, which it does after the handshake and,
// once only, when it has become idle. One thing is not known then: whether TLS
// has read, with a request, a part of the next, which its client sent before it
// had the answer.
func (c *Conn) UnderTLS() {
	c.mu.Lock()
	c.tls = true
	c.mu.Unlock()
}

// quiet is the rule for a Read under TLS. mu is held.
func (c *Conn) quiet() bool {
	return !c.read && (c.phase == fresh || c.phase == idle && c.deadlines == 1)
}

// records keep TLS to one record at a time. It would read beyond the end of the
// handshake, into the first request, since many clients send both at once.
type records struct {
	header [5]byte
	have   int // of the header
	left   int // of what it announced

	foreign bool // it is not TLS, but plain HTTP for instance
}

// limit is how many bytes may be read.
func (r *records) limit() int {
	if r.left > 0 {
		return r.left
	}
	return len(r.header) - r.have
}

// passed takes note of bytes that were read, within the limit.
func (r *records) passed(b []byte) {
	if r.left > 0 {
		r.left -= len(b)
		return
	}
	if r.have += copy(r.header[r.have:], b); r.have == len(r.header) {
		r.have, r.left = 0, int(binary.BigEndian.Uint16(r.header[3:]))
		r.foreign = r.foreign || r.header[0] < firstRecordType || r.header[0] > lastRecordType
	}
}

// Content types of RFC 8446, section 5.1.
const (
	firstRecordType = 20
	lastRecordType  = 23
)

// swallow reads away what has arrived of a request in plain text, which net/http
// has answered after a look at its first bytes: what is left unread would make
// the close a reset, and the client lose the answer.
func (c *Conn) swallow() {
	_ = c.inner.SetReadDeadline(time.Now().Add(swallowTime))
	var b [4 << 10]byte
	_, _ = c.inner.Read(b[:])
}

// swallowTime is how long a request may take that has arrived.
const swallowTime = 10 * time.Millisecond
