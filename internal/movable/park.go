package movable

import (
	"net/http"
	"sync"
	"time"
)

// Moved is a connection that was taken away, with what its next server must
// know. All but Conn can be sent to another process.
type Moved struct {
	Conn   Stream
	Unread []byte        // the beginning of the next request; Read comes after it
	Idle   time.Duration // how long it had been idle; if New, how much of the time for the header had passed
	New    bool          // no request has been answered on it
	Posted bool          // the last request was a POST (see Handling)
}

// State tells the connection what net/http does with it. It must be called from
// http.Server.ConnState with every state, before anyone else's hook, and only
// if the net.Conn there is this very Conn, or one that was told so by UnderTLS.
func (c *Conn) State(s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		c.since = time.Now()
		if c.phase == untold && !c.touched { // else ConnContext has read from it
			c.phase = fresh
		}
	case http.StateActive:
		c.to(busy)
	case http.StateIdle:
		c.posted, c.posting = c.posting, false
		c.unused = false
		c.deadlines = 0
		c.resumed = nil
		c.since = time.Now()
		c.to(idle)
		if c.reads > 0 {
			// The background reader, which net/http has stopped by now, but for
			// a body left unread under EnableFullDuplex: that starts it again,
			// and net/http's next read panics.
			c.to(busy)
		}
	case http.StateHijacked, http.StateClosed:
		c.to(never)
	}
}

// Handling tells the connection that a request has reached the handler.
// net/http passes over empty lines after a POST, and only then; a server that
// the connection moves to has to be told.
func (c *Conn) Handling(method string) {
	c.mu.Lock()
	c.posting = method == http.MethodPost
	c.mu.Unlock()
}

// Parked reports whether net/http waits for a request of which it has nothing
// yet, and since when. It is true as well for the instant in which the first
// bytes are being read: who acts on it must use Pull or CloseParked.
func (c *Conn) Parked() (since time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.parked || c.pull != nil || c.phase == never {
		return time.Time{}, false
	}
	return c.since.Add(-c.elapsed()), true
}

// Since returns when net/http said last that the connection is new, or idle.
func (c *Conn) Since() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since
}

// pull is an attempt to take the connection away.
type pull struct {
	keep    bool // the connection, and bytes that arrive
	unread  []byte
	settled chan bool // holds one: whether it has gone
	left    chan struct{}
	once    sync.Once
}

// let says that net/http has let the connection go.
func (p *pull) let() { p.once.Do(func() { close(p.left) }) }

// past is a deadline that ends a Read now.
var past = time.Unix(1, 0)

// Pull takes the connection away from net/http if it is parked. net/http sees
// the end of the connection and closes it, which Pull waits for as long as the
// timeout allows, and does not touch the Stream any more, whether or not it has
// got so far.
//
// If it returns false the connection is served on untouched: it was not parked,
// or a request came first, or it was closed or hijacked.
func (c *Conn) Pull(timeout time.Duration) (Moved, bool) {
	p := c.take(true, timeout)
	if p == nil {
		return Moved{}, false
	}
	_ = c.inner.SetDeadline(time.Time{}) // fails only if it is closed, which its next server notices
	c.mu.Lock()
	defer c.mu.Unlock()
	return Moved{
		Conn:   c.inner,
		Unread: p.unread,
		Idle:   time.Since(c.since) + c.elapsed(),
		New:    c.unused,
		Posted: c.posted,
	}, true
}

// CloseParked closes the connection if it is parked and no byte has arrived.
// Between the last look and the close, one may still.
func (c *Conn) CloseParked(timeout time.Duration) bool {
	if c.take(false, timeout) == nil {
		return false
	}
	_ = c.inner.Close()
	return true
}

// take wakes the parked Read and returns what came of it, or nil.
func (c *Conn) take(keep bool, timeout time.Duration) *pull {
	c.mu.Lock()
	if !c.parked || c.pull != nil || c.phase == never || keep && c.tls {
		c.mu.Unlock()
		return nil
	}
	p := &pull{keep: keep, settled: make(chan bool, 1), left: make(chan struct{})}
	c.pull = p
	c.deadline.woke = true
	_ = c.inner.SetReadDeadline(past) // fails only if it is closed: then the Read ends, too
	c.mu.Unlock()

	timer := time.NewTimer(timeout)
	defer timer.Stop()
	gone := false
	select {
	case gone = <-p.settled:
	case <-timer.C:
		c.mu.Lock()
		if c.pull == p && !c.gone.Load() {
			c.settle(false)
		}
		c.mu.Unlock()
		gone = <-p.settled
	}
	if !gone {
		c.mu.Lock()
		shut := c.shut
		c.mu.Unlock()
		if shut { // while the pull was in the way
			_ = c.inner.Close()
		}
		return nil
	}
	select {
	case <-p.left:
	case <-timer.C:
	}
	return p
}

// settle ends the pull for the Read, and keeps it for Close if the connection
// has gone. mu is held.
func (c *Conn) settle(gone bool) {
	c.pull.settled <- gone
	if gone {
		return
	}
	c.pull = nil
	_ = c.obey() // as in take
}
