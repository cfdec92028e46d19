package dispatch_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

// all are the policies of the package.
func all() []dispatch.Policy {
	return []dispatch.Policy{dispatch.RoundRobin(), dispatch.Weighted(5, 1, 1), dispatch.LeastConnections(), dispatch.Hash()}
}

// someConns are of different listeners and clients.
func someConns() []dispatch.Conn {
	cs := make([]dispatch.Conn, 64)
	for i := range cs {
		cs[i] = dispatch.Conn{Listener: i % 2, ID: uint64(i), Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(i))}
	}
	return cs
}

func TestPoliciesDoNotAllocate(t *testing.T) {
	cs, ws := someConns(), weigh(5, 1, 1, 0)
	for _, p := range all() {
		n := testing.AllocsPerRun(100, func() {
			for _, c := range cs {
				i := p.Pick(c, ws)
				ws[i].Open++
			}
		})
		if n != 0 {
			t.Errorf("%s allocates %v times for %d connections", p.Name(), n, len(cs))
		}
	}
}

// TestPoliciesPickWhoHasRoom is what a master relies on.
func TestPoliciesPickWhoHasRoom(t *testing.T) {
	cs := someConns()
	for _, p := range all() {
		for set := range 1 << 4 { // who has room
			ws := weigh(2, 0, 1, 0)
			for i := range ws {
				ws[i].Free = set >> i & 1
			}
			for _, c := range cs {
				i := p.Pick(c, ws)
				if set == 0 && i != -1 || set != 0 && (i < 0 || i >= len(ws) || ws[i].Free == 0) {
					t.Fatalf("%s picks %d of %+v", p.Name(), i, ws)
				}
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	cs := someConns()
	for _, p := range all() {
		for _, workers := range []int{2, 8, 64} {
			b.Run(fmt.Sprintf("%s/%d", p.Name(), workers), func(b *testing.B) {
				ws := upTo(workers)
				for i := range ws {
					ws[i].Weight = 1 + i%3
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					p.Pick(cs[i%len(cs)], ws)
				}
			})
		}
	}
}
