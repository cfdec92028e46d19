package listener

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAcceptDoesNotAllocate(t *testing.T) {
	const runs = 50
	l := bind(t, NewSpec("unix", filepath.Join(t.TempDir(), "s"), Name("unix")))
	fds := make([]int, 1)
	var g Gate = &testGate{room: 1 << 20}
	if got := testing.AllocsPerRun(runs, func() { l.TryAccept(fds, g) }); got != 0 {
		t.Errorf("TryAccept on an empty queue: %v allocations", got)
	}
	var none Gate = &testGate{}
	if got := testing.AllocsPerRun(runs, func() { l.Accept(fds, none) }); got != 0 {
		t.Errorf("Accept without room: %v allocations", got)
	}
	for range runs + 1 {
		dial(t, l)
	}
	if got := testing.AllocsPerRun(runs, func() {
		if n, _ := l.Accept(fds, g); n == 1 {
			unix.Close(fds[0])
		}
	}); got != 0 {
		t.Errorf("Accept: %v allocations", got)
	}
}
