//go:build unix

package workers

import (
	"bytes"
	"fmt"

	"github.com/baton-go/baton/workers/ipc"
)

// MaxShared bounds what Share takes.
const MaxShared = ipc.MaxPayload

// Share gives b to every worker: to new ones before they are ready, to those
// that run in place of what they had. The pool does not look into it. What is
// longer than MaxShared is an error.
//
// It never reaches a file, the environment, a log or the status, so it may be a
// secret of the service.
func (p *Pool) Share(b []byte) error {
	if len(b) > MaxShared {
		return fmt.Errorf("share %d bytes with the workers: expected %d at most", len(b), MaxShared)
	}
	b = bytes.Clone(b)
	p.post(func() {
		p.shared = b
		for _, g := range p.generations {
			for _, c := range g.children {
				p.tell(c)
			}
		}
	})
	return nil
}

// welcome lets a worker that has introduced itself build its application.
func (p *Pool) welcome(c *child) {
	c.welcomed = true
	c.say(msgWelcome, p.shared)
}

// tell tells a worker what is shared now. One that is not welcome yet learns it
// then.
func (p *Pool) tell(c *child) {
	welcomed := c.welcomed || c.state >= WorkerIsReady // by another master
	if welcomed && c.state < WorkerIsKilled && len(p.shared) > 0 {
		c.say(msgShared, p.shared)
	}
}

// Shared delivers what the master shares with its workers. What there was from
// the start is there when Join returns; later a newer one replaces one that was
// not picked up.
func (w *Worker) Shared() <-chan []byte { return w.shared }

func (w *Worker) learn(b []byte) {
	if len(b) == 0 {
		return // of a master that shares nothing
	}
	select {
	case <-w.shared:
	default:
	}
	w.shared <- bytes.Clone(b)
}
