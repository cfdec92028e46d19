package control

import "context"

// Actions that a Verdict is about.
const (
	ActionReload   = "reload"
	ActionUpgrade  = "upgrade"
	ActionRollback = "rollback"
	ActionScale    = "scale"
	ActionWeight   = "weight"
	ActionStop     = "stop"
)

// Backend is the service behind a Server. Its methods are called from many
// goroutines at once. The contexts are never cancelled by a client that goes
// away: who asked for a deploy and left has still asked for it.
type Backend interface {
	// Status is a snapshot that the backend does not change afterwards.
	Status() Status
	// Healthy is nil while the master works.
	Healthy() error
	// Ready is nil while new connections are served.
	Ready() error
	// Reload replaces the workers; it returns when the deploy is decided.
	Reload(ctx context.Context) Verdict
	// Upgrade replaces the master too; it returns when the deploy is decided.
	Upgrade(ctx context.Context) Verdict
	// Rollback goes back to the release that served before.
	Rollback(ctx context.Context) Verdict
	// Scale changes the number of workers of the serving generation.
	Scale(ctx context.Context, r ScaleRequest) Verdict
	// Weight changes weights of the serving generation.
	Weight(ctx context.Context, r WeightRequest) Verdict
	// Stop begins to stop the service.
	Stop(ctx context.Context, r StopRequest) Verdict
}

// Verdict is how a request ended.
type Verdict struct {
	// OK is whether it was done.
	OK bool `json:"ok"`
	// Action: reload, upgrade, rollback, scale, weight or stop.
	Action string `json:"action"`
	// Generation that serves because of it, or that was refused; 0 if none.
	Generation int `json:"generation,omitempty"`
	// Reason that it was refused or failed; on success a remark, if any.
	Reason string `json:"reason,omitempty"`
	// Stderr is the tail of what the failed candidate wrote to its stderr.
	Stderr string `json:"stderr,omitempty"`
	// TookMS is how long the decision took, in milliseconds.
	TookMS int64 `json:"took_ms"`
	// Coalesced is whether several requests were answered by one deploy.
	Coalesced bool `json:"coalesced,omitempty"`
	// Elsewhere is whether a new master has to be asked, which answers at the
	// same socket; nothing was done. A Client asks it.
	Elsewhere bool `json:"elsewhere,omitempty"`
}

// ScaleRequest asks for a number of workers: Workers in all, or Delta more
// (fewer, if negative) than are wanted now. Exactly one of them is given.
type ScaleRequest struct {
	Workers *int `json:"workers,omitempty"`
	Delta   int  `json:"delta,omitempty"`
}

// WeightRequest asks for other shares of the new connections, by slot. Slots that
// are not named keep theirs.
type WeightRequest struct {
	Weights map[int]int `json:"weights"`
}

// StopRequest asks for the end of the service.
type StopRequest struct {
	// Now skips the drain: what is open is cut.
	Now bool `json:"now,omitempty"`
}
