package framework

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/baton-go/baton/internal/movable"
)

// connState is what is known of a connection that net/http serves, or has let
// somebody hijack.
type connState struct {
	conn     *movable.Conn // nil if it is none
	tls      bool          // conn is beneath TLS
	h2       atomic.Bool
	hijacked atomic.Bool
	closing  atomic.Bool  // the client has been told to close, or will see it done
	state    atomic.Int32 // the http.ConnState

	// The httpServer's mu guards these.
	foreign time.Time // since when it is in its state, if conn is nil
	goAway  time.Time // when GOAWAY was sent
	over    bool      // net/http has done with it

	// The turns' mu guards these, but for a look at turn.
	turn atomic.Pointer[turn] // nil until somebody asks for it
	left bool
}

func newConnState(c net.Conn) *connState {
	st := &connState{foreign: time.Now()}
	if st.conn, st.tls = beneath(c); st.tls {
		st.conn.UnderTLS()
	}
	if st.conn != nil {
		st.conn.Owner = st
	}
	return st
}

// rests says whether no request is being served, as far as net/http has told.
func (c *connState) rests() bool {
	s := http.ConnState(c.state.Load())
	return s == http.StateIdle || s == http.StateNew
}

// since is when it began to rest. The httpServer's mu is held.
func (c *connState) since() time.Time {
	if c.conn != nil {
		return c.conn.Since()
	}
	return c.foreign
}

// beneath returns our own connection, and whether it is served with TLS above.
func beneath(c net.Conn) (mc *movable.Conn, tls bool) {
	switch c := c.(type) {
	case *movable.Conn:
		return c, false
	case interface{ NetConn() net.Conn }:
		mc, tls = c.NetConn().(*movable.Conn)
	}
	return mc, tls
}

// connKey leads from a request's context to its connection's *connState.
type connKey struct{}

func connOf(ctx context.Context) *connState {
	st, _ := ctx.Value(connKey{}).(*connState)
	return st
}

// canMove says whether another worker could serve the connection.
func (c *connState) canMove() bool { return c.conn != nil && !c.tls && !c.h2.Load() }

// kind is what the connection counts as.
func (c *connState) kind() string {
	switch {
	case c.hijacked.Load():
		return "hijacked"
	case c.h2.Load():
		return "http2"
	case c.tls:
		return "tls"
	}
	return "http1"
}

// ended counts a connection that ends during the drain, unless it has gone to
// another worker, or was cut.
func (l *life) ended(c *connState) {
	told := l.turns.leave(c) || c.closing.Load()
	select {
	case <-l.cut:
		return
	case <-l.draining:
	default:
		return
	}
	switch {
	case c.conn != nil && c.conn.Away():
	case told:
		l.tally.softDrained(c.kind())
	default:
		l.tally.finished(c.kind())
	}
}

const (
	// idleRecheck is how long a connection must have been idle at least to be
	// closed, and how often that is looked at once the grace is over.
	idleRecheck = 50 * time.Millisecond

	// minRecheck is how soon a connection that has become idle is looked at again.
	minRecheck = time.Millisecond

	// parkTimeout bounds the wait for a connection that is being closed to notice.
	parkTimeout = 100 * time.Millisecond

	// goAwayTime is more than net/http leaves a client between GOAWAY and the
	// close, and what one that does not read may have.
	goAwayTime = 3 * time.Second
)

// closeIdle closes the connections on which no request has begun; when others
// are moving, those that cannot.
func (s *httpServer) closeIdle(moving bool) {
	s.mu.Lock()
	var parked []*connState
	var others []net.Conn // HTTP/2, and what is no connection of ours
	now := time.Now()
	idle, goneAway := s.l.idleLimit(now, idleRecheck), s.l.idleLimit(now, goAwayTime)
	for c, st := range s.conns {
		limit, since := idle, st.since()
		if since.Before(s.told) {
			since = s.told
		}
		if !st.goAway.IsZero() {
			limit = goneAway // net/http does it before
		}
		switch {
		case !st.rests():
		case moving && st.canMove():
		case now.Sub(since) < limit || now.Sub(st.goAway) < limit:
		case st.conn != nil && !st.h2.Load():
			parked = append(parked, st)
		default:
			st.closing.Store(true)
			others = append(others, c)
		}
	}
	s.mu.Unlock()
	for _, st := range parked {
		if _, ok := st.conn.Parked(); ok {
			st.closing.Store(true)
			st.conn.CloseParked(parkTimeout) // unless a request comes first
		}
	}
	for _, c := range others {
		c.Close()
	}
}
