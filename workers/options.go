package workers

import (
	"time"

	"github.com/baton-go/baton/listener"
)

// Options belong to a generation: they are those that its binary asked for.
type Options struct {
	Workers      int           // processes; at least 1
	ReadyTimeout time.Duration // from fork to ready
	DrainTimeout time.Duration // an old generation's time to finish
	KillTimeout  time.Duration // from a missed deadline to SIGKILL
	HangTimeout  time.Duration // without an answer before it is killed; 0 = never
	GiveUpAfter  time.Duration // without any serving worker before Run fails; 0 = never
	BakeTime     time.Duration // a generation that crashes when it is younger is taken back; 0 = never
	IdleGrace    time.Duration // how long a draining worker keeps idle connections
	Rolling      bool          // it replaces the one before worker by worker
	MaxDraining  int           // old generations at a time; the oldest beyond are cut
	Adopts       []string      // keys of the listeners whose handed-off connections it takes
	Dispatch     string        // name of the policy; "": round-robin

	// Accept has the accept modes of listeners, by key, that are accepted on
	// otherwise than by the master.
	Accept map[string]listener.AcceptMode

	// OrphanTimeout is how long workers live on when their master has died and
	// no other has come; 0: they drain and leave.
	OrphanTimeout time.Duration
}

// DefaultWindow is how many connections a worker may hold unacknowledged. A
// worker acknowledges when its server accepts, so this is its accept queue;
// what goes beyond is offered to others or stays in the kernel's queue.
const DefaultWindow = 64
