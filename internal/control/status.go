package control

import "time"

// Schema is the version of what the control socket speaks. It rises when a field
// of an answer changes its meaning or goes away, and with what can be asked for.
// New fields of answers do not raise it.
const Schema = 1

// States of the service (Status.State).
const (
	StateStarting  = "starting"  // the first generation is not ready yet
	StateServing   = "serving"   // nothing is being changed
	StateReloading = "reloading" // a new generation is being started
	StateUpgrading = "upgrading" // a new master is being started
	StateStopping  = "stopping"  // told to stop; what is open is being drained
)

// States of a generation (Generation.State).
const (
	GenerationStarting = "starting" // not all of its workers have said ready
	GenerationServing  = "serving"  // new connections go to it
	GenerationDraining = "draining" // finishes what it has
)

// States of a worker (Worker.State).
const (
	WorkerStarting = "starting" // spawned, not ready
	WorkerReady    = "ready"    // ready, waiting for its generation to be committed
	WorkerServing  = "serving"  // in rotation
	WorkerDraining = "draining" // gets nothing new
	WorkerStalled  = "stalled"  // out of rotation: it does not acknowledge
	WorkerKilled   = "killed"   // sent SIGKILL, not reaped yet
)

// Status is what GET /status answers: a snapshot of the service.
type Status struct {
	// Schema is the version of this document, see the constant.
	Schema int `json:"schema"`
	// State of the service: starting, serving, reloading, upgrading or stopping.
	State string `json:"state"`
	// Accepting is whether connections are taken now, by the master or by workers.
	// It is false while all workers' windows are full and while nobody serves:
	// connections wait in the kernel's queue then.
	Accepting bool `json:"accepting"`
	// Master is the process that answers.
	Master Master `json:"master"`
	// Listeners in the order in which they were configured.
	Listeners []Listener `json:"listeners"`
	// Generations that have a process or unsettled connections, oldest first.
	Generations []Generation `json:"generations"`
	// Pending connections are accepted and given to no worker yet.
	Pending int `json:"pending"`
	// Drained counts the connections of all workers that have drained since the
	// first master, by what became of them.
	Drained Drained `json:"drained"`
	// LastDeploy is the last verdict that was reached, nil before the first.
	LastDeploy *Verdict `json:"last_deploy,omitempty"`
}

// Master describes the master process.
type Master struct {
	// PID of the master, as the master sees it.
	PID int `json:"pid"`
	// Started is when this process started; an upgrade starts a new one.
	Started time.Time `json:"started"`
	// Binary that the master runs.
	Binary Binary `json:"binary"`
	// RuntimeDir holds the control socket and the lock.
	RuntimeDir string `json:"runtime_dir"`
	// FDs is the number of open file descriptors, 0 where it cannot be known.
	FDs int `json:"fds"`
	// Goroutines of the master.
	Goroutines int `json:"goroutines"`
	// Upgrades is how many masters came before this one without a gap.
	Upgrades int `json:"upgrades"`
}

// Binary is an executable as it was when it was pinned.
type Binary struct {
	// Path it was found at. The file there may be another one by now.
	Path string `json:"path"`
	// Size in bytes.
	Size int64 `json:"size"`
	// MTime is when the file was last modified.
	MTime time.Time `json:"mtime"`
	// GoVersion that built it.
	GoVersion string `json:"go_version,omitempty"`
	// Module is the path of the main module.
	Module string `json:"module,omitempty"`
	// Version of the main module.
	Version string `json:"version,omitempty"`
	// Revision of the version control system that it was built from.
	Revision string `json:"revision,omitempty"`
	// Modified is whether the tree had uncommitted changes.
	Modified bool `json:"modified,omitempty"`
}

// Listener is a bound address.
type Listener struct {
	// Name from the configuration.
	Name string `json:"name"`
	// Network: tcp, tcp4, tcp6 or unix.
	Network string `json:"network"`
	// Address as bound: the port is the real one where 0 was asked for.
	Address string `json:"address"`
	// Accept is the accept mode in force: master, workers or kernel.
	Accept string `json:"accept"`
	// Accepted connections, by whomever. The count goes on through upgrades.
	Accepted uint64 `json:"accepted"`
}

// Generation is one binary, one environment, one set of options and its workers.
type Generation struct {
	// Number counts from 1 and goes on through upgrades.
	Number int `json:"number"`
	// State: starting, serving or draining.
	State string `json:"state"`
	// Started is when the generation was begun.
	Started time.Time `json:"started"`
	// Age in seconds.
	Age float64 `json:"age_seconds"`
	// Workers wanted; Processes lists those there are.
	Workers int `json:"workers"`
	// Dispatch is the policy by which it gets connections, "" if it gets none.
	Dispatch string `json:"dispatch,omitempty"`
	// Binary that its workers run, respawned ones too.
	Binary Binary `json:"binary"`
	// Ledger accounts for its connections.
	Ledger Ledger `json:"ledger"`
	// Drained counts the connections of those of its workers that have drained
	// and are gone.
	Drained Drained `json:"drained"`
	// Processes in the order of their slots.
	Processes []Worker `json:"processes"`
}

// Worker is one process of a generation.
type Worker struct {
	// ID is "generation.slot", such as "7.2".
	ID string `json:"id"`
	// Slot counts from 1 within the generation; a respawned worker keeps it.
	Slot int `json:"slot"`
	// PID of the process, 0 while the slot waits for a respawn.
	PID int `json:"pid"`
	// State: starting, ready, serving, draining, stalled or killed.
	State string `json:"state"`
	// Started is when this process was spawned.
	Started time.Time `json:"started"`
	// Open connections that it has acknowledged and not closed.
	Open int64 `json:"open"`
	// Weight among the workers, where the policy has weights.
	Weight *int `json:"weight,omitempty"`
	// Dispatched connections: sent to it since it started.
	Dispatched uint64 `json:"dispatched"`
	// Unacked connections: sent and not acknowledged, still the master's.
	Unacked int `json:"unacked"`
	// Accepted connections: those that it has accepted by itself, which are not
	// among the dispatched.
	Accepted uint64 `json:"accepted"`
	// Restarts of the slot.
	Restarts int `json:"restarts"`
	// LastExit tells how the slot's previous process ended, "" if there was none.
	LastExit string `json:"last_exit,omitempty"`
}

// Drained counts connections by what became of them when their worker drained,
// each with its reasons or kinds.
type Drained struct {
	// Moved to the serving generation: idle, new or handoff.
	Moved map[string]int `json:"moved"`
	// SoftDrained: ended after they had been told to close: http1, tls, http2 or
	// hijacked.
	SoftDrained map[string]int `json:"soft_drained"`
	// Finished by themselves: the same kinds, or other.
	Finished map[string]int `json:"finished"`
	// Cut at the deadline, or because their worker died.
	Cut map[string]int `json:"cut"`
}

// filled gives d empty maps where there are none.
func (d Drained) filled() Drained {
	for _, m := range []*map[string]int{&d.Moved, &d.SoftDrained, &d.Finished, &d.Cut} {
		if *m == nil {
			*m = map[string]int{}
		}
	}
	return d
}

// Ledger accounts for every connection of a generation:
//
//	accepted = acknowledged + pending + redispatched + sum of refused
type Ledger struct {
	// Accepted connections, from the kernel or from another generation.
	Accepted uint64 `json:"accepted"`
	// Acknowledged connections: a worker has said that they are its own.
	Acknowledged uint64 `json:"acknowledged"`
	// Pending connections: accepted, not yet acknowledged.
	Pending uint64 `json:"pending"`
	// Redispatched connections: taken back from a dead worker and given to
	// another generation, where they count as accepted.
	Redispatched uint64 `json:"redispatched"`
	// Refused connections by reason: closed without having been served.
	Refused map[string]uint64 `json:"refused"`
	// Cut connections: acknowledged, and open when their worker died or was
	// killed. They are among the acknowledged.
	Cut uint64 `json:"cut"`
}

// RefusedTotal is the sum of Refused.
func (l Ledger) RefusedTotal() uint64 {
	var n uint64
	for _, v := range l.Refused {
		n += v
	}
	return n
}

// filled gives s with empty lists where there are none, so that a reader of
// the JSON meets [] and {} but never null. Nothing that s shares is written to.
func (s Status) filled() Status {
	if s.Schema == 0 {
		s.Schema = Schema
	}
	if s.Listeners == nil {
		s.Listeners = []Listener{}
	}
	s.Drained = s.Drained.filled()
	gens := make([]Generation, len(s.Generations))
	for i, g := range s.Generations {
		if g.Processes == nil {
			g.Processes = []Worker{}
		}
		if g.Ledger.Refused == nil {
			g.Ledger.Refused = map[string]uint64{}
		}
		g.Drained = g.Drained.filled()
		gens[i] = g
	}
	s.Generations = gens
	return s
}
