package movable

import (
	"net/http"
	"time"
)

// Resume makes a Conn of a connection that was taken away from another server,
// for srv to serve. srv takes it for a new one; Resume sees to it that bytes
// that arrived before are read first, and that time that has passed counts:
// of a new connection for the header, of an idle one for srv's IdleTimeout,
// which net/http itself does not apply to a connection it takes for new.
//
// Two differences remain, both on a connection that was idle. net/http does not
// count what it peeks, up to 4 KiB, towards MaxHeaderBytes, except on a new
// connection. And with unencrypted HTTP/2 enabled, a client that has spoken
// HTTP/1 can go on in HTTP/2.
func Resume(m Moved, srv *http.Server) *Conn {
	r := &resumed{elapsed: max(m.Idle, 0), between: !m.New}
	if r.between {
		r.idle = srv.IdleTimeout
		if r.idle == 0 {
			r.idle = srv.ReadTimeout // as net/http does
		}
	}
	return &Conn{
		inner:   m.Conn,
		unused:  m.New,
		posted:  m.Posted,
		pending: append([]byte(nil), m.Unread...),
		resumed: r,
	}
}

// peeked is how many bytes net/http waits for on an idle connection.
const peeked = 4

// leeway is left of a time that has run out on the way, so that what has
// arrived by then is read.
const leeway = 10 * time.Millisecond

// resumed is what a connection still has of its former life. The Conn's mu
// guards it.
type resumed struct {
	elapsed time.Duration

	// The rest is for a connection that came between two requests.
	between bool
	idle    time.Duration // IdleTimeout, or none
	header  time.Duration // what net/http gives the header, or none
	request bool          // one has begun
	begun   time.Time     // first Read
	waited  time.Duration // from then until the request began
}

// elapsed is how long the connection had been idle before it came here. mu is
// held, or the connection gone.
func (c *Conn) elapsed() time.Duration {
	if c.resumed == nil {
		return 0
	}
	return c.resumed.elapsed
}

// reading comes before each Read, of at most n bytes.
func (r *resumed) reading(c *Conn, n int) {
	if n < peeked { // not net/http, and no room to keep any
		r.request = true
	}
	if !r.between || !r.begun.IsZero() {
		return
	}
	r.begun = time.Now()
	var t time.Time
	if r.idle > 0 {
		t = r.begun.Add(max(r.idle-r.elapsed, leeway))
	}
	_ = c.setReadDeadline(t) // fails only if it is closed: the Read says so
}

// deadline returns the deadline that is meant when net/http sets t. hold says
// that it is for later.
func (r *resumed) deadline(c *Conn, t time.Time) (_ time.Time, hold bool) {
	switch {
	case !r.between: // for the header
		c.resumed = nil
		c.since = c.since.Add(-r.elapsed) // it counts at the next move, too
		if !t.IsZero() {
			t = latest(t.Add(-r.elapsed), time.Now().Add(leeway))
		}
	case r.begun.IsZero(): // for the header, which has not begun
		r.header = 0
		if !t.IsZero() {
			r.header = max(time.Until(t), leeway)
		}
		return t, true
	default: // for the whole request, which net/http reckons from the first Read
		c.resumed = nil
		if !t.IsZero() {
			t = t.Add(r.waited)
		}
	}
	return t, false
}

// bytes takes note of the bytes that are to be read, and returns how many are
// left of them. Of an idle connection net/http waits for four bytes before it
// looks at any, and passes over line ends among these, and those only, after a
// POST. Of a connection that it takes for new it would look at the first, and
// find fault with an empty line.
func (r *resumed) bytes(c *Conn, b []byte) (n int, more bool) {
	if !r.between || r.request {
		return len(b), false
	}
	if len(b) < peeked {
		return len(b), true
	}
	r.request = true
	now := time.Now()
	r.waited = now.Sub(r.begun)
	var t time.Time
	if r.header > 0 {
		t = now.Add(r.header)
	}
	_ = c.setReadDeadline(t) // as in reading
	skip := 0
	for c.posted && skip < peeked && (b[skip] == '\r' || b[skip] == '\n') {
		skip++
	}
	n = copy(b, b[skip:])
	return n, n == 0
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
