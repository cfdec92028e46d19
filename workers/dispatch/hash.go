package dispatch

import (
	"encoding/binary"
	"net/netip"
)

// Hash returns a policy that sends all connections of a client's address, its
// port aside, to the same slot: for caches, or sessions in memory, which another
// worker could do without if it had to.
//
// It is rendezvous hashing, or highest random weight (D. Thaler and C.
// Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
// Transactions on Networking 6(1), 1998): each client has an order of its own of
// all slots, and takes the first that has room. So a worker that is added to n
// takes one in n+1 clients, evenly from the others, and one that is gone or full
// leaves its clients to the next in their order, until it is back. A respawn, a
// reload and an upgrade change nothing, since the order is of slots.
//
// Connections without a client's address (Unix sockets) go in round-robin.
// Behind a proxy all addresses are the proxy's, and so is one worker. Who owns
// many addresses can direct their connections to one worker, but not beyond its
// room.
//
// Its name is hash.
func Hash() Policy { return &hash{} }

type hash struct{ rest roundRobin }

func (*hash) Name() string { return "hash" }
func (*hash) ByClient()    {}

func (p *hash) Pick(c Conn, ws []Worker) int {
	addr := c.Client.Addr()
	if !addr.IsValid() {
		return p.rest.Pick(c, ws)
	}
	key := keyOf(addr)
	best, most := -1, uint64(0)
	for i := range ws {
		if ws[i].Free <= 0 {
			continue
		}
		if rank := mix(key ^ mix(uint64(ws[i].Slot))); best < 0 || rank > most {
			best, most = i, rank
		}
	}
	return best
}

// keyOf is the same in every process, and in every release: the next master has
// to find each client where this one did.
func keyOf(a netip.Addr) uint64 {
	b := a.As16()
	return mix(mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", 2014): every bit of x changes half of the
// result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
