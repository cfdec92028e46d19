package workers

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Messages from master to worker. Their numbers are for ever; new ones come last.
// A worker ignores what it does not know.
const (
	msgHello     uint8 = 1 + iota // JSON greeting: who you are, which listeners there are
	msgCommit                     // your generation serves
	msgConn                       // connections: id and listener of each, fds attached
	msgPing                       // answer with msgPong
	msgDrain                      // JSON DrainOrder; may be repeated with a shorter time
	msgWelcome                    // after the introduction: build the application; has what is shared
	msgMoved                      // a connection from another worker, see appendMoved
	msgReceipt                    // ids of returned connections that are the master's now
	msgKeep                       // id of a returned connection that stays the worker's, and why: u8
	msgShared                     // what is shared has changed
	msgStopping                   // the service ends: never live on without a master
	msgTrust                      // JSON trust, with what it takes to live without a master
	msgAdopted                    // JSON takeover: you have another master
	msgLicence                    // number of a listener, a socket attached: accept from that for yourself
	msgUnlicence                  // number of a listener: accept for yourself no more
)

// Messages from worker to master, likewise. A master takes what it does not know
// for an error, unless the worker speaks a later version.
const (
	msgIntro      uint8 = 64 + iota // JSON Intro: what you started
	msgReady                        // connections are welcome
	msgFailed                       // JSON failure: it will never be ready
	msgAck                          // ids of connections that now are the worker's
	msgNack                         // ids of connections it has no room for
	msgPong                         // alive
	msgLeave                        // asked to end by someone else; drain it
	msgDrained                      // JSON Drained; it exits next
	msgReturn                       // a connection for another worker, see appendMoved
	msgUnadopted                    // ids of handed-off connections that nothing here adopts
	msgPresent                      // JSON presence, to another master than the one that started it
	msgLicensed                     // number of a listener: it accepts for itself
	msgUnlicensed                   // number of a listener: it does not, or no more
	msgLater                        // and all above: of later versions
)

// greeting is the first message: the master's.
type greeting struct {
	Protocol   Versions        `json:"protocol"`
	Nonce      string          `json:"nonce"`
	Generation int             `json:"generation"`
	Slot       int             `json:"slot"`
	Listeners  []ListenerInfo  `json:"listeners"`
	Committed  bool            `json:"committed"` // a respawn in a generation that serves
	Settings   json.RawMessage `json:"settings,omitempty"`
}

// ListenerInfo tells a worker of a listener that its master holds.
type ListenerInfo struct {
	Name    string `json:"name"`
	Network string `json:"network"` // of the address as bound: tcp or unix
	Address string `json:"address"`
}

// Intro is the first message of a worker.
type Intro struct {
	Protocol Versions        `json:"protocol"`
	Nonce    string          `json:"nonce"`
	PID      int             `json:"pid"`
	Settings json.RawMessage `json:"settings"` // what its code and environment ask for; opaque here
}

// trust lets a worker of a generation that serves live on without a master. Its
// counters and its crash file come with it, for the next master to have, its
// listeners, in its own order, to accept for itself, and the leash, if there is
// one.
type trust struct {
	Socket  string        `json:"socket"`            // where the next master can be found
	Timeout time.Duration `json:"timeout"`           // how long it may take to come
	Leash   bool          `json:"leash,omitempty"`   // the last file is one
	Sockets []int         `json:"sockets,omitempty"` // of each listener; nil: one each
}

// spans says whose each of n sockets is, of so many listeners: counts has the
// numbers, one each if it is nil. False: they do not add up.
func spans(counts []int, listeners, n int) (of []int, ok bool) {
	if counts == nil {
		for i := range listeners {
			of = append(of, i)
		}
		return of, listeners == n
	}
	if len(counts) != listeners {
		return nil, false
	}
	for i, k := range counts {
		if k < 1 || k > n-len(of) {
			return nil, false
		}
		of = append(of, slices.Repeat([]int{i}, k)...)
	}
	return of, len(of) == n
}

// presence is the first message of a worker to a master that did not start it.
// The files that came with its trust are attached; one that drains has given
// the listeners up.
type presence struct {
	Protocol   Versions `json:"protocol"`
	Nonce      string   `json:"nonce"`
	Generation int      `json:"generation"`
	Slot       int      `json:"slot"`
	Draining   bool     `json:"draining"`
	Sockets    []int    `json:"sockets,omitempty"` // as in its trust
}

// takeover tells a worker what its new master speaks, which may be less than the
// one before did.
type takeover struct {
	Protocol Versions `json:"protocol"`
}

// failure is a worker's own account of why it will not serve.
type failure struct {
	Reason string `json:"reason"`
}

// DrainOrder tells a worker to finish.
type DrainOrder struct {
	Timeout time.Duration `json:"timeout"` // then what is left is cut
	Grace   time.Duration `json:"grace"`   // how long idle connections are kept for a last request
	Move    bool          `json:"move"`    // idle connections can be given back
	Reason  string        `json:"reason"`
}

var errProtocol = errors.New("protocol error")

// ErrNeedsMaster: a release cannot be served by this master, but by one of its
// own binary. Config.Options returns it; a generation refused for it is no event.
var ErrNeedsMaster = errors.New("that takes a new master")

// connEntrySize is one connection in msgConn: id, listener.
const connEntrySize = 10

func appendConn(b []byte, id uint64, listener uint16) []byte {
	b = binary.LittleEndian.AppendUint64(b, id)
	return binary.LittleEndian.AppendUint16(b, listener)
}

// connEntry returns the i-th connection of a msgConn payload.
func connEntry(b []byte, i int) (id uint64, listener uint16) {
	b = b[i*connEntrySize:]
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:])
}

// connCount checks a msgConn payload against the number of files with it.
func connCount(b []byte, files int) (int, error) {
	if len(b) == 0 || len(b)%connEntrySize != 0 || len(b)/connEntrySize != files {
		return 0, fmt.Errorf("%w: %d bytes of connections with %d files", errProtocol, len(b), files)
	}
	return files, nil
}

const idSize = 8

// licenceSize is the payload of the messages about a licence: the worker's number
// of the listener.
const licenceSize = 2

func encodeLicence(listener uint16) []byte {
	return binary.LittleEndian.AppendUint16(nil, listener)
}

func decodeLicence(b []byte) (listener uint16, err error) {
	if len(b) != licenceSize {
		return 0, fmt.Errorf("%w: %d bytes of a licence", errProtocol, len(b))
	}
	return binary.LittleEndian.Uint16(b), nil
}

// idCount checks a msgAck or msgNack payload.
func idCount(b []byte) (int, error) {
	if len(b) == 0 || len(b)%idSize != 0 {
		return 0, fmt.Errorf("%w: %d bytes of connection ids", errProtocol, len(b))
	}
	return len(b) / idSize, nil
}

func idAt(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i*idSize:]) }

func decode[T any](payload []byte) (T, error) {
	var v T
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, fmt.Errorf("%w: %v", errProtocol, err)
	}
	return v, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("workers: " + err.Error()) // only our own types come here
	}
	return b
}

func appendID(b []byte, id uint64) []byte { return binary.LittleEndian.AppendUint64(b, id) }
