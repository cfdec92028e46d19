//go:build unix

package workers

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is the size of the counters that a worker shares with its master.
// They cost no message, and outlive the worker: what was open when it died is
// what its death cut.
const pageSize = 64

const (
	pageOpen  = 0 // connections open now
	pageTotal = 8 // connections taken since the start
)

// counters is the worker's side: the page mapped and written by atomics.
type counters struct {
	mem         []byte
	open, total *atomic.Int64
	ended       chan struct{} // told when a connection ends; holds one
}

func mapCounters(f *os.File) (*counters, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the counters: %w", err)
	}
	return &counters{
		mem:   mem,
		open:  (*atomic.Int64)(unsafe.Pointer(&mem[pageOpen])),
		total: (*atomic.Int64)(unsafe.Pointer(&mem[pageTotal])),
		ended: make(chan struct{}, 1),
	}, nil
}

// end counts a connection out.
func (c *counters) end() {
	c.open.Add(-1)
	select {
	case c.ended <- struct{}{}:
	default:
	}
}

// readCounters is the master's side. It reads with pread, which no worker can
// turn into a fault, and believes no number that cannot be.
func readCounters(f *os.File) (open, total int64) {
	var b [pageSize]byte
	if n, _ := f.ReadAt(b[:], 0); n < pageSize {
		return 0, 0
	}
	open = int64(binary.NativeEndian.Uint64(b[pageOpen:]))
	total = int64(binary.NativeEndian.Uint64(b[pageTotal:]))
	return counted(open), counted(total)
}
