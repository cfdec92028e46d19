package workers

// ledger counts what became of the connections that a generation was given.
// It is guarded by the dispatcher's lock. At any moment
//
//	accepted = acknowledged + pending + redispatched + Σ refused
//
// where pending is not a counter but the number of connections really held.
type ledger struct {
	generation   int
	accepted     uint64
	acknowledged uint64
	redispatched uint64
	refused      map[string]uint64
	cut          uint64
}

// Reasons for which a connection can be refused.
const (
	refusedStopped  = "stopped"          // the master stopped before any worker could take it
	refusedTouched  = "already-read"     // its worker died after reading from it
	refusedListener = "listener-removed" // the new release no longer has its listener
	refusedAdopter  = "not-adopted"      // handed off, and the release that serves by then adopts none of its listener
)

func newLedger(generation int) *ledger {
	return &ledger{generation: generation, refused: map[string]uint64{}}
}

func (l *ledger) refuse(reason string) { l.refused[reason]++ }

// LedgerStatus is a snapshot of a generation's ledger.
type LedgerStatus struct {
	Accepted     uint64            `json:"accepted"`
	Acknowledged uint64            `json:"acknowledged"`
	Pending      uint64            `json:"pending"`
	Redispatched uint64            `json:"redispatched"`
	Refused      map[string]uint64 `json:"refused"`
	Cut          uint64            `json:"cut"`
}

func (l *ledger) status(pending int) LedgerStatus {
	refused := make(map[string]uint64, len(l.refused))
	for reason, n := range l.refused {
		refused[reason] = n
	}
	return LedgerStatus{
		Accepted:     l.accepted,
		Acknowledged: l.acknowledged,
		Pending:      uint64(pending),
		Redispatched: l.redispatched,
		Refused:      refused,
		Cut:          l.cut,
	}
}

func (l *ledger) restore(s LedgerStatus) {
	l.accepted, l.acknowledged, l.redispatched, l.cut = s.Accepted, s.Acknowledged, s.Redispatched, s.Cut
	for reason, n := range s.Refused {
		l.refused[reason] = n
	}
}
