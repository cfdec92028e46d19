package main

import (
	"net/netip"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

func TestNetworksStayTogether(t *testing.T) {
	p := byNetwork{dispatch.Hash()}
	ws := []dispatch.Worker{{Slot: 1, Free: 9}, {Slot: 2, Free: 9}, {Slot: 3, Free: 9}}
	pick := func(addr string) int {
		return ws[p.Pick(dispatch.Conn{Client: netip.MustParseAddrPort(addr)}, ws)].Slot
	}
	for _, same := range [][2]string{
		{"192.0.2.1:1000", "192.0.2.254:2000"},
		{"[2001:db8::1]:1", "[2001:db8::ffff:0:0:1]:2"},
	} {
		if a, b := pick(same[0]), pick(same[1]); a != b {
			t.Errorf("%v go to slots %d and %d", same, a, b)
		}
	}
	used := map[int]bool{}
	for _, addr := range []string{"10.0.0.1:1", "10.0.1.1:1", "10.0.2.1:1", "10.0.3.1:1", "10.0.4.1:1", "10.0.5.1:1", "10.0.6.1:1", "10.0.7.1:1"} {
		used[pick(addr)] = true
	}
	if len(used) != len(ws) {
		t.Errorf("eight networks use slots %v", used)
	}
	if n := testing.AllocsPerRun(100, func() { pick("192.0.2.1:1000") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
