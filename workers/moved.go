package workers

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Moved is what travels with a connection that goes from one worker to another:
// an idle one, of a worker that drains, or one that the application hands off.
type Moved struct {
	Unread  []byte        `json:"unread,omitempty"`  // to be read before what the socket has, at most MaxUnread bytes
	Idle    time.Duration `json:"idle"`              // how long it has been idle; if New, how much of the time for the header has passed
	New     bool          `json:"new,omitempty"`     // no request has been answered on it
	Posted  bool          `json:"posted,omitempty"`  // the last request was a POST
	Handoff bool          `json:"handoff,omitempty"` // it is for the adopter of its listener, and not to be accepted
	State   []byte        `json:"state,omitempty"`   // for the adopter, at most MaxState bytes
}

// Reception is what becomes of a connection that a worker gives back.
type Reception uint8

const (
	Kept   Reception = iota // it stays with this worker, and so will the others
	NotNow                  // it stays for now, since nobody has room
	Taken                   // another worker gets it
)

// What can travel with a connection at most, in bytes.
const (
	MaxUnread = 16 << 10
	MaxState  = 15 << 10
)

// A message that moves a connection: id u64, listener u16, flags u8, idle u32
// in milliseconds, length u16 of the state, state, and the unread bytes. The
// descriptor is attached.
const movedSize = 17

const (
	flagNew     = 1 << 0
	flagPosted  = 1 << 1
	flagHandoff = 1 << 2
)

func appendMoved(b []byte, id uint64, listener uint16, m Moved) []byte {
	var flags byte
	if m.New {
		flags |= flagNew
	}
	if m.Posted {
		flags |= flagPosted
	}
	if m.Handoff {
		flags |= flagHandoff
	}
	idle := min(max(m.Idle.Milliseconds(), 0), math.MaxUint32)
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint16(b, listener)
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(idle))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.State)))
	b = append(b, m.State...)
	return append(b, m.Unread...)
}

func parseMoved(b []byte) (id uint64, listener uint16, m Moved, err error) {
	if len(b) < movedSize {
		return 0, 0, Moved{}, fmt.Errorf("%w: %d bytes of a moved connection", errProtocol, len(b))
	}
	m = Moved{
		Idle:    time.Duration(binary.LittleEndian.Uint32(b[11:])) * time.Millisecond,
		New:     b[10]&flagNew != 0,
		Posted:  b[10]&flagPosted != 0,
		Handoff: b[10]&flagHandoff != 0,
	}
	state, rest := int(binary.LittleEndian.Uint16(b[15:])), b[movedSize:]
	if state > min(MaxState, len(rest)) || len(rest)-state > MaxUnread || state > 0 && !m.Handoff {
		return 0, 0, Moved{}, fmt.Errorf("%w: %d bytes of a moved connection with %d of state", errProtocol, len(b), state)
	}
	m.State, m.Unread = copied(rest[:state]), copied(rest[state:])
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:]), m, nil
}

// copied is nil for nothing.
func copied(b []byte) []byte { return append([]byte(nil), b...) }
