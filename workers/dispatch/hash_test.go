package dispatch_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

// clients are addresses as they come: of a few networks, one after the other, and
// of anywhere.
func clients(n int) []netip.AddrPort {
	r := rand.New(rand.NewPCG(3, 4))
	out := make([]netip.AddrPort, n)
	for i := range out {
		var a netip.Addr
		switch i % 3 {
		case 0:
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], 0x0a000000+uint32(i))
			a = netip.AddrFrom4(b)
		case 1:
			var b [16]byte
			copy(b[:], "\x20\x01\x0d\xb8")
			binary.BigEndian.PutUint32(b[12:], uint32(i))
			a = netip.AddrFrom16(b)
		default:
			var b [16]byte
			binary.NativeEndian.PutUint64(b[:], r.Uint64())
			binary.NativeEndian.PutUint64(b[8:], r.Uint64())
			a = netip.AddrFrom16(b)
		}
		out[i] = netip.AddrPortFrom(a, uint16(r.Uint32()))
	}
	return out
}

// places returns the slot of each client.
func places(t *testing.T, ws []dispatch.Worker, cs []netip.AddrPort) []int {
	t.Helper()
	p := dispatch.Hash()
	out := make([]int, len(cs))
	for i, c := range cs {
		at := p.Pick(dispatch.Conn{ID: uint64(i), Client: c}, ws)
		if at < 0 || ws[at].Free <= 0 {
			t.Fatalf("%v is given to %d of %+v", c, at, ws)
		}
		out[i] = ws[at].Slot
	}
	return out
}

// upTo makes workers with room in slots 1 to n.
func upTo(n int) []dispatch.Worker { return weigh(make([]int, n)...) }

const manyClients = 30000

func TestHashIsEven(t *testing.T) {
	cs := clients(manyClients)
	for _, n := range []int{1, 2, 3, 8, 32} {
		got := map[int]int{}
		for _, slot := range places(t, upTo(n), cs) {
			got[slot]++
		}
		for slot := 1; slot <= n; slot++ {
			if share := float64(got[slot]) * float64(n) / manyClients; share < 0.85 || share > 1.15 {
				t.Errorf("slot %d of %d has %.2f of its share: %v", slot, n, share, got)
			}
		}
	}
}

func TestResizeMovesOnlyItsShare(t *testing.T) {
	cs := clients(manyClients)
	for _, n := range []int{1, 2, 3, 7, 8, 16, 31} {
		before, after := places(t, upTo(n), cs), places(t, upTo(n+1), cs)
		moved := 0
		for i := range cs {
			if before[i] == after[i] {
				continue
			}
			moved++
			if after[i] != n+1 {
				t.Fatalf("from %d to %d workers %v moves from slot %d to %d", n, n+1, cs[i], before[i], after[i])
			}
		}
		if share := float64(moved) / manyClients * float64(n+1); share < 0.85 || share > 1.15 {
			t.Errorf("from %d to %d workers %d of %d clients move, %.2f of the share", n, n+1, moved, manyClients, share)
		}
		// And back: who was not on the last one stays.
		if back := places(t, upTo(n), cs); !slices.Equal(back, before) {
			t.Errorf("from %d to %d workers and back, clients are elsewhere", n, n+1)
		}
	}
}

// TestGoneAndFullLeaveTheirClientsToTheNext: the others' stay where they are, and
// it makes no difference why one gets nothing.
func TestGoneAndFullLeaveTheirClientsToTheNext(t *testing.T) {
	cs := clients(manyClients)
	all := places(t, upTo(5), cs)
	for slot := 1; slot <= 5; slot++ {
		without := places(t, full(upTo(5), slot), cs)
		gone := places(t, slices.Delete(upTo(5), slot-1, slot), cs)
		if !slices.Equal(without, gone) {
			t.Errorf("slot %d: it matters whether it is full or gone", slot)
		}
		heirs := map[int]int{}
		for i := range cs {
			if all[i] != slot && without[i] != all[i] {
				t.Fatalf("%v is in slot %d, and moves because %d is full", cs[i], all[i], slot)
			}
			if all[i] == slot {
				heirs[without[i]]++
			}
		}
		for _, n := range heirs { // evenly
			if share := float64(n) * 4 * 5 / manyClients; len(heirs) != 4 || share < 0.8 || share > 1.2 {
				t.Errorf("slot %d leaves its clients to %v", slot, heirs)
				break
			}
		}
	}
}

// TestHashNeverChanges: the next release has to find clients where they are.
func TestHashNeverChanges(t *testing.T) {
	var got string
	for _, c := range []string{"127.0.0.1:1", "127.0.0.2:1", "192.0.2.7:80", "10.1.2.3:4", "[::1]:1", "[2001:db8::7]:1"} {
		got += fmt.Sprint(places(t, upTo(8), []netip.AddrPort{netip.MustParseAddrPort(c)})[0], " ")
	}
	if want := "8 7 7 3 6 5 "; got != want {
		t.Errorf("slots %q, want %q", got, want)
	}
}

func TestHashLooksAtTheAddressAlone(t *testing.T) {
	p, ws := dispatch.Hash(), upTo(16)
	a := p.Pick(dispatch.Conn{ID: 1, Client: netip.MustParseAddrPort("192.0.2.1:1")}, ws)
	for id := range uint64(100) {
		c := dispatch.Conn{ID: id, Listener: int(id % 3), Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(id))}
		if b := p.Pick(c, ws); b != a {
			t.Fatalf("%+v goes to %d, was %d", c, b, a)
		}
	}
}

func TestHashWithoutAddressGoesInTurn(t *testing.T) {
	if got := picks(dispatch.Hash(), upTo(3), 6); !slices.Equal(got, []int{1, 2, 3, 1, 2, 3}) {
		t.Errorf("picked %v", got)
	}
	if got := picks(dispatch.Hash(), nil, 1); got[0] != -1 {
		t.Errorf("of nobody %v", got)
	}
	c := dispatch.Conn{Client: netip.MustParseAddrPort("192.0.2.1:1")}
	if i := dispatch.Hash().Pick(c, full(upTo(2), 1, 2)); i != -1 {
		t.Errorf("of full ones %d", i)
	}
}
