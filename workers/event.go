package workers

import (
	"fmt"
	"time"
)

// ID names a worker: the generation it belongs to and its slot in it.
type ID struct {
	Generation int `json:"generation"`
	Slot       int `json:"slot"`
}

// String returns the form used in logs and by ps, such as "7.2".
func (id ID) String() string { return fmt.Sprintf("%d.%d", id.Generation, id.Slot) }

// Event is something that happened to a pool. Logs, status and metrics are
// subscribers of events; the set of event types is closed.
//
// Events are delivered in order, from one goroutine. A subscriber that blocks
// delays later events but never the pool; when more than 1,024 events wait,
// the newest are dropped.
type Event interface{ event() }

// WorkerForked: a process was started. It is not ready yet.
type WorkerForked struct {
	Worker  ID
	PID     int
	Restart bool // it replaces one that exited
}

// WorkerUnstarted: no process could be started for a slot of a generation that
// serves, for want of descriptors, memory or processes as a rule.
type WorkerUnstarted struct {
	Worker  ID
	Reason  string
	Respawn time.Duration // until the next attempt
}

// WorkerReady: the worker said that it can take connections.
type WorkerReady struct {
	Worker ID
	PID    int
	Took   time.Duration // since it was forked
}

// WorkerDraining: the worker gets no more connections and finishes those it has.
type WorkerDraining struct {
	Worker ID
	PID    int
	Reason string
}

// WorkerMisbehaved: the worker sent what no worker sends. It finishes what it
// has and is replaced.
type WorkerMisbehaved struct {
	Worker ID
	PID    int
	Reason string
}

// WorkerStalled: the worker has not answered for a second and is passed over
// until it does.
type WorkerStalled struct {
	Worker ID
	PID    int
	For    time.Duration
}

// WorkerResumed: a stalled worker answered again.
type WorkerResumed struct {
	Worker ID
	PID    int
}

// WorkerKilled: the master sends SIGKILL, for the reason given.
type WorkerKilled struct {
	Worker ID
	PID    int
	Reason string
}

// WorkerExited: the process is gone.
type WorkerExited struct {
	Worker   ID
	PID      int
	Status   string        // "exit status 1", "signal: killed", or "unknown" for an adopted worker
	Expected bool          // the master had asked for it
	Starting bool          // its generation did not serve yet; GenerationRefused says more
	Cut      int           // connections that were open in it
	Requeued int           // connections it never acknowledged, given to others
	Output   string        // the end of its crash trace or stderr, if it has one
	Respawn  time.Duration // until its replacement is started; negative when there is none
}

// GenerationRolled: a generation that serves since some time has replaced the one
// before worker by worker, which serves no more.
type GenerationRolled struct {
	Generation int
	Workers    int
	Took       time.Duration // since it began to serve
	Previous   int
}

// GenerationServing: from now on connections go to this generation.
type GenerationServing struct {
	Generation int
	Workers    int
	Revision   string
	Took       time.Duration // from the start of its first worker
	Previous   int           // the generation it replaces; 0 if none
}

// GenerationRefused: a generation never served; the one before goes on.
type GenerationRefused struct {
	Generation int
	Reason     string
	Stderr     string
}

// GenerationFailing: the workers of a generation that serves since less than
// BakeTime die too often. If its master can, it goes back to the release before.
type GenerationFailing struct {
	Generation int
	Crashes    int
	After      time.Duration // since it served
	Reason     string        // the last worker's end
}

// GenerationDrained: the last worker of an old generation is gone.
type GenerationDrained struct {
	Generation int
	Drained    Drained // what became of its connections
	Took       time.Duration
}

// WorkerAdopted: the worker of a master that has died is this one's.
type WorkerAdopted struct {
	Worker   ID
	PID      int
	Draining bool // it serves no more
}

// PolicyFailed: the dispatch policy cannot be found, answers with what is of no
// use (told once), or has panicked. Round-robin does its work: for such an answer,
// or for good.
type PolicyFailed struct {
	Policy string
	Reason string
	Stack  string // of a panic
}

// RecordFailed: the record of the pool cannot be written. Until it can, workers
// that are started leave when their master is killed.
type RecordFailed struct{ Reason string }

// RecordWritten: it is written again.
type RecordWritten struct{}

// AcceptPaused: the master leaves connections in the kernel's queue.
type AcceptPaused struct {
	Listener string
	Reason   string
}

// AcceptResumed: it takes them again.
type AcceptResumed struct {
	Listener string
	After    time.Duration
}

// KernelUnable: in accept mode kernel the master accepts from a listener instead,
// from all of it or from what it has for one slot.
type KernelUnable struct {
	Listener string
	Reason   string
}

func (WorkerForked) event()      {}
func (WorkerUnstarted) event()   {}
func (WorkerReady) event()       {}
func (WorkerDraining) event()    {}
func (WorkerStalled) event()     {}
func (WorkerMisbehaved) event()  {}
func (WorkerResumed) event()     {}
func (WorkerKilled) event()      {}
func (WorkerExited) event()      {}
func (GenerationServing) event() {}
func (GenerationRolled) event()  {}
func (GenerationRefused) event() {}
func (GenerationDrained) event() {}
func (GenerationFailing) event() {}
func (WorkerAdopted) event()     {}
func (PolicyFailed) event()      {}
func (RecordFailed) event()      {}
func (RecordWritten) event()     {}
func (AcceptPaused) event()      {}
func (AcceptResumed) event()     {}
func (KernelUnable) event()      {}
