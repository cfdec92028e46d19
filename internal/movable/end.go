package movable

// OnEnd has f called once, when the connection is closed or has left: for one
// that net/http has let go of, and says no more about. It is called before the
// Stream is closed, and at once if that has happened.
func (c *Conn) OnEnd(f func()) {
	c.mu.Lock()
	c.onEnd = f
	over := c.shut || c.gone.Load()
	c.mu.Unlock()
	if over {
		c.ended()
	}
}

func (c *Conn) ended() {
	c.mu.Lock()
	f := c.onEnd
	c.onEnd = nil
	c.mu.Unlock()
	if f != nil {
		f()
	}
}

// Away reports whether the connection was taken away by Pull or Release: it is
// not closed, and somebody else has it.
func (c *Conn) Away() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone.Load() && (c.pull == nil || c.pull.keep)
}
