//go:build unix

package framework

import (
	"runtime"
	"sync"
)

// spareThreads is more than a master needs at a time: for a fork, for files, for
// standard error that nobody reads.
const spareThreads = 8

// makeSpareThreads has the runtime make n threads, which it keeps and uses when it
// needs more. One that it cannot make when it needs it is the end of the process,
// and a user or a container may be at its limit of them then, by what workers do.
func makeSpareThreads(n int) {
	var all sync.WaitGroup
	var ended sync.WaitGroup
	all.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait() // each has one of its own until then
		})
	}
	ended.Wait()
}
