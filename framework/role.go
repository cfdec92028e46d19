package framework

import (
	"os"
	"sync/atomic"

	"github.com/baton-go/baton/upgrade"
	"github.com/baton-go/baton/workers"
)

// ProcessRole is what a process is for. All roles run the same main, up to Run.
type ProcessRole int32

// Roles.
const (
	RoleMaster ProcessRole = iota // owns the listeners, runs no handler
	RoleWorker                    // serves
	RoleSingle                    // both in one process, see SingleProcess
	RoleInit                      // PID 1 of a container: starts the master, and no more
)

func (r ProcessRole) String() string {
	switch r {
	case RoleWorker:
		return "worker"
	case RoleSingle:
		return "single"
	case RoleInit:
		return "init"
	}
	return "master"
}

// The role is read before main can start other programs, which must not take
// our markers for theirs.
var (
	mark *workers.Mark // nil unless this is a worker
	role atomic.Int32
)

func init() {
	if m, ok := workers.Marked(); ok {
		mark = m
		role.Store(int32(RoleWorker))
	} else if upgrade.IsInit() {
		role.Store(int32(RoleInit))
	}
}

// Role returns what this process is. Before Run a process that is no worker
// counts as a master, or as init if it is PID 1, since it may yet turn out to be
// one.
func Role() ProcessRole { return ProcessRole(role.Load()) }

// Generation returns the number of the generation that this worker belongs to,
// from 1. It goes on through upgrades. 0 in a master; 1 in a single process.
func Generation() int {
	if mark != nil {
		return mark.ID().Generation
	}
	if Role() == RoleSingle {
		return 1
	}
	return 0
}

// Slot returns this worker's place in its generation, from 1. A worker that
// replaces a dead one has its slot. 0 in a master; 1 in a single process.
func Slot() int {
	if mark != nil {
		return mark.ID().Slot
	}
	if Role() == RoleSingle {
		return 1
	}
	return 0
}

// WorkerID returns generation and slot as in "7.2"; "" in a master.
func WorkerID() string {
	if Slot() == 0 {
		return ""
	}
	return workers.ID{Generation: Generation(), Slot: Slot()}.String()
}

// LogAttrs returns what tells this process' log lines from others', as
// arguments for slog.Logger.With: role and pid, and for a worker its id and
// generation.
func LogAttrs() []any {
	attrs := []any{"role", Role().String(), "pid", os.Getpid()}
	if id := WorkerID(); id != "" {
		attrs = append(attrs, "worker", id, "generation", Generation())
	}
	return attrs
}
