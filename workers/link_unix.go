//go:build unix

package workers

import (
	"errors"
	"time"

	"github.com/baton-go/baton/workers/ipc"
)

// link is a worker's connection to a master: to the one that started it, or to
// one that has adopted it since. What is said about a connection goes to the
// master that sent it, and to no other: the next one has never heard of it.
type link struct {
	conn *ipc.Conn
	lost chan struct{} // closed when this master is gone and all it said has been read
}

func newLink(c *ipc.Conn) *link { return &link{conn: c, lost: make(chan struct{})} }

// alive says whether there may be a master at the other end. A nil link is that
// of connections that no master has sent.
func (k *link) alive() bool {
	if k == nil {
		return false
	}
	select {
	case <-k.lost:
		return false
	default:
		return true
	}
}

// settle acknowledges or refuses connections that came by this link. Should its
// master be gone, so are its copies, and they are ours alone either way.
func (k *link) settle(typ uint8, ids []uint64) {
	if k == nil {
		return
	}
	var buf [acceptBatch * idSize]byte
	b := buf[:0]
	for _, id := range ids {
		b = appendID(b, id)
	}
	_ = k.send(typ, b, nil)
}

// sendRetries times sendPause is how long a message waits for kernel memory.
const (
	sendRetries = 200
	sendPause   = 10 * time.Millisecond
)

// send sends what must not get lost: a master that never hears of a connection
// being ours would keep it for ever.
func (k *link) send(typ uint8, payload []byte, files []int) error {
	for n := 0; ; n++ {
		err := k.conn.Send(typ, payload, files)
		if err == nil || !errors.Is(err, ipc.ErrLoad) || n == sendRetries {
			return err
		}
		time.Sleep(sendPause)
	}
}
