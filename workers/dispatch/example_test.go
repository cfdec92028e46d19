package dispatch_test

import (
	"fmt"

	"github.com/baton-go/baton/workers/dispatch"
)

// pinned gives each listener a worker of its own, as long as that has room.
type pinned struct{ rest dispatch.Policy }

func (pinned) Name() string { return "pinned" }

func (p pinned) Pick(c dispatch.Conn, ws []dispatch.Worker) int {
	for i, w := range ws {
		if w.Slot == c.Listener && w.Free > 0 {
			return i
		}
	}
	return p.rest.Pick(c, ws)
}

// A policy of one's own, which falls back to one of the package's.
func ExamplePolicy() {
	var policy dispatch.Policy = pinned{rest: dispatch.RoundRobin()}

	workers := []dispatch.Worker{
		{Slot: 0, Free: 8},
		{Slot: 1, Free: 8},
		{Slot: 2, Free: 0}, // its window is full
	}
	for id, listener := range []int{1, 1, 2, 2} {
		i := policy.Pick(dispatch.Conn{Listener: listener, ID: uint64(id)}, workers)
		fmt.Printf("listener %d: worker %d\n", listener, workers[i].Slot)
	}
	// Output:
	// listener 1: worker 1
	// listener 1: worker 1
	// listener 2: worker 0
	// listener 2: worker 1
}
