package workers

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Moved is what travels with a connection that goes from one worker to another:
// an idle one, of a worker that drains.
type Moved struct {
	Unread []byte        `json:"unread,omitempty"` // the beginning of the next request, at most MaxUnread bytes
	Idle   time.Duration `json:"idle"`             // how long it has been idle; if New, how much of the time for the header has passed
	New    bool          `json:"new,omitempty"`    // no request has been answered on it
	Posted bool          `json:"posted,omitempty"` // the last request was a POST
}

// Reception is what becomes of a connection that a worker gives back.
type Reception uint8

const (
	Kept   Reception = iota // it stays with this worker, and so will the others
	NotNow                  // it stays for now, since nobody has room
	Taken                   // another worker gets it
)

// MaxUnread is the most that can travel with a connection.
const MaxUnread = 16 << 10

// A message that moves a connection: id u64, listener u16, flags u8, idle u32
// in milliseconds, and the unread bytes. The descriptor is attached.
const movedSize = 15

const (
	flagNew    = 1 << 0
	flagPosted = 1 << 1
)

func appendMoved(b []byte, id uint64, listener uint16, m Moved) []byte {
	var flags byte
	if m.New {
		flags |= flagNew
	}
	if m.Posted {
		flags |= flagPosted
	}
	idle := min(max(m.Idle.Milliseconds(), 0), math.MaxUint32)
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint16(b, listener)
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(idle))
	return append(b, m.Unread...)
}

func parseMoved(b []byte) (id uint64, listener uint16, m Moved, err error) {
	if len(b) < movedSize || len(b) > movedSize+MaxUnread {
		return 0, 0, Moved{}, fmt.Errorf("%w: %d bytes of a moved connection", errProtocol, len(b))
	}
	m = Moved{
		Idle:   time.Duration(binary.LittleEndian.Uint32(b[11:])) * time.Millisecond,
		New:    b[10]&flagNew != 0,
		Posted: b[10]&flagPosted != 0,
	}
	if unread := b[movedSize:]; len(unread) > 0 {
		m.Unread = append([]byte(nil), unread...)
	}
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:]), m, nil
}
