package tickets

import (
	"crypto/rand"
	"fmt"
	"time"
)

// Rotation is how long a key seals tickets. A variable for tests only.
var Rotation = 24 * time.Hour

// ringSize is the next key, the one that seals, and those that may have sealed
// a ticket which still lives: 7 days, of which crypto/tls accepts none longer.
const ringSize = 1 + 1 + 7

// Ring is the keys as their owner, the master, has them. It is for one
// goroutine at a time.
//
// It goes by the number of rotations and by the monotonic clock, never by the
// time of day: a clock that is set wrongly, or set right, costs no session.
type Ring struct {
	// Newest first. The very first does not seal yet: every worker has a key
	// before any of them uses it, so none meets a ticket that it cannot open.
	keys    Keys
	sealing time.Time // since when the second one seals
}

// New makes a ring with fresh keys.
func New() *Ring {
	return &Ring{keys: Keys{fresh(), fresh()}, sealing: time.Now()}
}

func fresh() (key [keySize]byte) {
	_, _ = rand.Read(key[:]) // never fails: the program would end
	return key
}

// Due is how long it is until the next rotation, 0 if that is late.
func (r *Ring) Due() time.Duration { return max(0, Rotation-time.Since(r.sealing)) }

// Rotate puts the next key into use and makes another. The oldest is forgotten
// once no ticket that it has sealed lives.
func (r *Ring) Rotate() {
	r.keys = append(Keys{fresh()}, r.keys[:min(len(r.keys), ringSize-1)]...)
	r.sealing = time.Now()
}

// Keys returns the keys in the order in which they are used.
func (r *Ring) Keys() Keys {
	k := append(Keys(nil), r.keys...)
	k[0], k[1] = k[1], k[0]
	return k
}

// Record is a ring for another process.
type Record struct {
	Keys []byte        `json:"keys"`
	Age  time.Duration `json:"age"` // since the last rotation, as time of day would not tell it
}

// Record describes r.
func (r *Ring) Record() Record { return Record{Keys: r.keys.Bytes(), Age: time.Since(r.sealing)} }

// FromRecord makes the ring that rec describes.
func FromRecord(rec Record) (*Ring, error) {
	k, err := ParseKeys(rec.Keys)
	if err != nil {
		return nil, err
	}
	if len(k) < 2 {
		return nil, fmt.Errorf("session ticket keys: %d, expected 2 at least", len(k))
	}
	age := min(max(rec.Age, 0), Rotation)
	return &Ring{keys: k[:min(len(k), ringSize)], sealing: time.Now().Add(-age)}, nil
}
