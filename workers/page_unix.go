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

// Behind them is how many connections the worker has accepted by itself, for each
// of its listeners, as far as the file goes: that of an earlier master has no room
// for it.
const (
	pageOwn  = pageSize
	pageFile = 4096
	maxOwn   = (pageFile - pageOwn) / 8
)

// counters is the worker's side: the page mapped and written by atomics.
type counters struct {
	mem         []byte
	open, total *atomic.Int64
	own         []*atomic.Int64 // by listener
	ended       chan struct{}   // told when a connection ends; holds one
}

func mapCounters(f *os.File) (*counters, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, pageFile, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the counters: %w", err)
	}
	own := make([]*atomic.Int64, maxOwn)
	for i := range own {
		own[i] = (*atomic.Int64)(unsafe.Pointer(&mem[pageOwn+8*i]))
	}
	return &counters{
		own:   own,
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

// accepted counts a connection in that the worker has accepted by itself.
func (c *counters) accepted(listener uint16) {
	if int(listener) < len(c.own) {
		c.own[listener].Add(1)
	}
}

// readOwn is the master's side of that, for n listeners.
func readOwn(f *os.File, n int) []int64 {
	own := make([]int64, n)
	b := make([]byte, 8*min(n, maxOwn))
	got, _ := f.ReadAt(b, pageOwn)
	for i := range got / 8 {
		own[i] = counted(int64(binary.NativeEndian.Uint64(b[8*i:])))
	}
	return own
}
