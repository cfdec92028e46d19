//go:build !unix

package load

import "time"

// idle looks at the connection for a moment without taking anything. The
// moment must lie ahead: a read past its deadline does not look at all.
func (k *conn) idle() idleState {
	if err := k.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return closed
	}
	_, err := k.r.Peek(1)
	switch {
	case err == nil:
		return talking
	case isTimeout(err):
		return quiet
	}
	return closed
}
