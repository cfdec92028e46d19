package movable

import (
	"net"
	"os"
	"time"
)

// deadline is the read deadline of a Conn, kept here and not by the poller.
//
// net/http sets it seven times a request: for the header, for the body, away and
// back around the background reader, for the idle time. Almost none of these is
// ever reached, but each moves a timer under the poller's locks. So the Stream
// knows only two deadlines, none and past, and the others are one timer of our
// own, which is let run when the deadline moves to later, or away: when it goes
// off it looks at what is wanted by then, and is set anew. On a busy connection
// it moves once in a ReadHeaderTimeout, however many the requests.
//
// A deadline is never early. It is late by what a goroutine needs to start.
//
// The Conn's mu guards it.
type deadline struct {
	wanted  time.Time   // zero: none
	passed  bool        // it is over
	timer   *time.Timer // nil until there is a deadline ahead
	rings   time.Time   // when the timer goes off; zero: it does not run
	woke    bool        // the Stream's is past; else it is none
	direct  bool        // the Stream has the deadline itself
	overdue error       // what Read returns then
}

// setReadDeadline sets what is wanted. While there is a pull, the Stream's stays
// past: that wakes the Read. mu is held.
func (c *Conn) setReadDeadline(t time.Time) error {
	d := &c.deadline
	d.passed = false
	switch {
	case t.IsZero():
	case t.Equal(past): // as net/http ends its background reader; it takes no clock
		d.passed = true
	default:
		now := time.Now()
		left := t.Sub(now)
		t = now.Add(left) // on the monotonic clock from here on
		d.passed = left <= 0
	}
	d.wanted = t
	switch {
	case c.gone.Load():
		return nil
	case c.shut && c.pull == nil:
		return c.inner.SetReadDeadline(t) // which says that it is closed
	case !d.passed && !t.IsZero() && !d.direct && (d.rings.IsZero() || t.Before(d.rings)):
		c.ring(t)
	}
	return c.obey()
}

// ring sets the timer. mu is held.
func (c *Conn) ring(t time.Time) {
	d := &c.deadline
	d.rings = t
	if d.timer == nil {
		d.timer = time.AfterFunc(time.Until(t), c.rung)
		return
	}
	d.timer.Reset(time.Until(t))
}

// rung looks whether the deadline is over. The timer may have been set anew
// meanwhile, which does no harm.
func (c *Conn) rung() {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.deadline
	d.rings = time.Time{}
	switch {
	case c.gone.Load() || c.shut || d.direct || d.wanted.IsZero():
	case time.Until(d.wanted) > 0:
		c.ring(d.wanted)
	default:
		d.passed = true
		_ = c.obey() // fails only if it is closed: then the Read ends, too
	}
}

// obey makes the Stream do as is wanted: it wakes the Reads that wait, or lets
// them wait again. Those to come look for themselves. mu is held.
func (c *Conn) obey() error {
	d := &c.deadline
	switch {
	case c.pull != nil:
		return nil
	case d.direct:
		d.woke = false
		return c.inner.SetReadDeadline(d.wanted)
	case d.passed && c.reads > 0 && !d.woke:
		d.woke = true
		return c.inner.SetReadDeadline(past)
	case !d.passed && d.woke && c.reads > 0:
		return c.calm()
	}
	return nil
}

// calm lets the Stream's Read wait. mu is held.
func (c *Conn) calm() error {
	if !c.deadline.woke {
		return nil
	}
	c.deadline.woke = false
	return c.inner.SetReadDeadline(time.Time{})
}

// late is what a Read returns at once: nil if it may wait. mu is held.
func (c *Conn) late() error {
	d := &c.deadline
	if d.direct || c.shut || c.pull != nil {
		return nil
	}
	if !d.passed {
		_ = c.calm() // fails only if it is closed: the Read says so
		return nil
	}
	if d.overdue == nil {
		local := c.inner.LocalAddr()
		d.overdue = &net.OpError{Op: "read", Net: local.Network(), Source: local, Addr: c.inner.RemoteAddr(), Err: os.ErrDeadlineExceeded}
	}
	return d.overdue
}

// over says whether a timeout of the Stream is one of the deadline that is
// wanted. mu is held.
func (d *deadline) over() bool {
	return d.passed || d.direct && !d.wanted.IsZero() && time.Until(d.wanted) <= 0
}

// expose gives the deadline to the Stream for good, for who goes past Read. mu
// is held.
func (c *Conn) expose() {
	c.deadline.direct = true
	c.forgo()
	_ = c.obey() // fails only if it is closed, which is seen soon enough
}

// forgo stops the timer. mu is held.
func (c *Conn) forgo() {
	if d := &c.deadline; d.timer != nil {
		d.timer.Stop()
		d.rings = time.Time{}
	}
}
