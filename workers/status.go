package workers

import (
	"time"

	"github.com/baton-go/baton/listener"
)

// Status is a snapshot of a pool.
type Status struct {
	Serving     int // the serving generation; 0 before the first
	Pending     int // connections accepted and not placed
	Accepting   bool
	Listeners   []ListenerStatus
	Generations []GenerationStatus
	Drained     Drained // by all workers that drained since the first master
}

// ListenerStatus is a snapshot of a listener.
type ListenerStatus struct {
	ListenerInfo
	Mode     listener.AcceptMode // in force
	Accepted uint64
}

// GenerationStatus is a snapshot of a generation.
type GenerationStatus struct {
	Number  int
	State   GenerationState
	Wanted  int
	Started time.Time
	Path    string
	Size    int64
	MTime   time.Time
	Build   Build
	Options Options
	Policy  string // by which it gets connections; "" when it gets none
	Ledger  LedgerStatus
	Drained Drained // by those of its workers that are gone
	Workers []WorkerStatus
}

// WorkerStatus is a snapshot of a worker.
type WorkerStatus struct {
	ID         ID
	PID        int
	State      WorkerState
	Stalled    bool
	Started    time.Time
	Open       int64 // connections
	Weight     int   // -1 where the policy has no weights
	Dispatched uint64
	Unacked    int
	Accepted   uint64 // by itself
	Restarts   int    // of its slot
	LastExit   string // of the one in its slot before
}

// Build is what a Go binary says of itself.
type Build struct {
	GoVersion string `json:"go_version,omitempty"`
	Module    string `json:"module,omitempty"`
	Version   string `json:"version,omitempty"`
	Revision  string `json:"revision,omitempty"`
	Modified  bool   `json:"modified,omitempty"`
}
