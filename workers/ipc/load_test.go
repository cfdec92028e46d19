//go:build unix

package ipc_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

func TestConcurrentSendersDoNotMix(t *testing.T) {
	a, b := pair(t)
	crowd(t, a, b)
}

// crowd has senders that wait and senders that try, and lets each message carry
// a file that tells whose it is.
func crowd(t *testing.T, a, b *ipc.Conn) {
	const senders, each = 6, 150
	files := tempFiles(t, senders)
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				// Of many lengths, filled with the sender's number.
				payload := make([]byte, 4+(i*977+s*131)%9000)
				for j := range payload {
					payload[j] = byte(s)
				}
				binary.LittleEndian.PutUint32(payload, uint32(i))
				send := a.Send
				if s%2 == 0 {
					send = a.TrySend
				}
				err := send(uint8(s), payload, files[s:s+1])
				for err == ipc.ErrWouldBlock {
					runtime.Gosched()
					err = send(uint8(s), payload, files[s:s+1])
				}
				if err != nil {
					t.Errorf("sender %d: %v", s, err)
					return
				}
			}
		})
	}
	var next [senders]int
	for range senders * each {
		f, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		s := int(f.Type)
		if len(f.Files) != 1 || contents(t, f.Files[0]) != fmt.Sprint(s) {
			t.Fatalf("message of sender %d came with files %v of somebody else", s, f.Files)
		}
		closeAll(f.Files)
		if i := int(binary.LittleEndian.Uint32(f.Payload)); i != next[s] {
			t.Fatalf("message %d of sender %d, want %d", i, s, next[s])
		}
		if want := 4 + (next[s]*977+s*131)%9000; len(f.Payload) != want {
			t.Fatalf("message %d of sender %d is %d bytes, want %d", next[s], s, len(f.Payload), want)
		}
		for _, c := range f.Payload[4:] {
			if int(c) != s {
				t.Fatalf("message of sender %d holds bytes of sender %d", s, c)
			}
		}
		next[s]++
	}
	wg.Wait()
}

func TestNoAllocationInSteadyState(t *testing.T) {
	a, b := pair(t)
	files := tempFiles(t, 4)
	payload := make([]byte, 64)
	for _, tt := range []struct {
		name  string
		files []int
	}{{"no files", nil}, {"4 files", files}} {
		t.Run(tt.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(100, func() {
				if err := a.TrySend(1, payload, tt.files); err != nil {
					t.Fatal(err)
				}
				f, err := b.Recv()
				if err != nil {
					t.Fatal(err)
				}
				closeAll(f.Files)
			})
			if allocs > recvAllocs {
				t.Errorf("TrySend and Recv allocate %v times, want %d", allocs, recvAllocs)
			}
		})
	}
	const sent = 50 // few enough for the buffer; AllocsPerRun adds one
	allocs := testing.AllocsPerRun(sent-1, func() {
		if err := a.TrySend(1, payload, files); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("TrySend allocates %v times", allocs)
	}
	for range sent {
		f, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		closeAll(f.Files)
	}
	fill(t, a, payload)
	if allocs := testing.AllocsPerRun(100, func() { a.TrySend(1, payload, nil) }); allocs != 0 {
		t.Errorf("TrySend on a full buffer allocates %v times", allocs)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, n := range []int{0, 1, 16} {
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			from, to := pair(b)
			files := tempFiles(b, n)
			payload := make([]byte, 16*n)
			b.ReportAllocs()
			for b.Loop() {
				if err := from.TrySend(1, payload, files); err != nil {
					b.Fatal(err)
				}
				f, err := to.Recv()
				if err != nil {
					b.Fatal(err)
				}
				for _, fd := range f.Files {
					unix.Close(fd)
				}
			}
		})
	}
}
