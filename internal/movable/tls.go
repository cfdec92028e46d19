package movable

// UnderTLS says that net/http serves a *tls.Conn above this connection. It must
// be called before net/http reads, and State then with the states of the
// *tls.Conn.
//
// Such a connection is parked if nothing has been read beneath TLS since
// net/http last set the read deadline, which it does after the handshake and,
// once only, when it has become idle. What TLS itself has read too much by then
// is not known: a part of a request that its client sent before it had read the
// answer to the one before.
func (c *Conn) UnderTLS() {
	c.mu.Lock()
	c.tls = true
	c.mu.Unlock()
}

// quiet is the rule for a Read under TLS. mu is held.
func (c *Conn) quiet() bool {
	return !c.read && (c.phase == fresh || c.phase == idle && c.deadlines == 1)
}
