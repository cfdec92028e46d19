//go:build unix

package workers

import "time"

// What is handed over, and in part written down for a master that is handed nothing.

type handover struct {
	Protocol    Versions           `json:"protocol"` // that can read it
	Clocks      *reading           `json:"clocks,omitempty"`
	NextID      uint64             `json:"next_id"`
	Override    int                `json:"override"`
	Accepted    map[string]uint64  `json:"accepted"` // by listener key
	Drained     Drained            `json:"drained"`
	Queue       []heldRecord       `json:"queue"`
	Beside      map[string]int     `json:"beside,omitempty"` // sockets of a listener beside its first, whose files come first, in the order of the keys
	Generations []generationRecord `json:"generations"`
}

type generationRecord struct {
	Number   int             `json:"number"`
	State    GenerationState `json:"state"`
	Protocol Versions        `json:"protocol"` // that its workers speak
	Binary   Binary          `json:"binary"`
	Env      []string        `json:"env"`
	Options  Options         `json:"options"`
	Wanted   int             `json:"wanted"`
	Weights  map[int]int     `json:"weights,omitempty"`
	Ledger   LedgerStatus    `json:"ledger"`
	Born     time.Time       `json:"born"`
	Served   time.Time       `json:"served"`
	Drained  time.Time       `json:"drained"`
	Outcome  Drained         `json:"outcome"`
	Workers  []childRecord   `json:"workers"`
}

type childRecord struct {
	Listeners  []string     `json:"listeners"`
	Slot       int          `json:"slot"`
	PID        int          `json:"pid"`
	State      WorkerState  `json:"state"`
	Nonce      string       `json:"nonce"`
	Born       time.Time    `json:"born"`
	Ready      time.Time    `json:"ready"`
	DrainBy    time.Time    `json:"drain_by"`
	Expected   bool         `json:"expected"`
	Restarts   int          `json:"restarts"`
	Reason     string       `json:"reason"`
	Report     *Drained     `json:"report,omitempty"`
	Dispatched uint64       `json:"dispatched"`
	Brought    uint64       `json:"brought"`
	Unacked    []heldRecord `json:"unacked"`
	Entrusted  bool         `json:"entrusted"` // it can live on without a master
	Fostered   bool         `json:"fostered"`  // it has, and accepted for itself

	Licences []licenceState `json:"licences,omitempty"` // as its Listeners
	Owed     int32          `json:"owed,omitempty"`     // answers about them

	// For a master that is handed nothing: what it has to find, and to be shown.
	Start uint64 `json:"start,omitempty"`
	Page  fileID `json:"page,omitzero"`
	Crash fileID `json:"crash,omitzero"`
}

type heldRecord struct {
	Moved      *Moved    `json:"moved,omitempty"`
	At         time.Time `json:"at"`
	Consumed   int64     `json:"consumed,omitempty"`
	Token      bool      `json:"token,omitempty"` // its file follows the connection's
	ID         uint64    `json:"id"`
	Listener   string    `json:"listener"` // key
	Generation int       `json:"generation"`
}
