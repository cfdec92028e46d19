// Policy is a service with a dispatch policy of its own: all clients of a network
// are served by the same worker, as long as that has room.
//
//	go run ./examples/policy           # then, again and again: curl localhost:8080
//	BATON_DISPATCH=round-robin go run ./examples/policy
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/netip"
	"os"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/workers/dispatch"
)

func main() {
	addr := flag.String("listen", ":8080", "address to listen on")
	flag.Parse()

	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s from worker %s\n", r.RemoteAddr, framework.WorkerID())
	})
	err := framework.Run(hello, framework.Listen("tcp", *addr), framework.Dispatch(byNetwork{dispatch.Hash()}))
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

// byNetwork is dispatch.Hash for networks in place of addresses: /24 of IPv4, and
// /64 of IPv6.
type byNetwork struct{ hash dispatch.Policy }

// Name is what a release asks for, and BATON_DISPATCH can. Should what it does
// change, it would be by-network/2: a master of the release before has only the
// code that it was started with.
func (byNetwork) Name() string { return "by-network" }

// ByClient makes the master look for Conn.Client.
func (byNetwork) ByClient() {}

// Pick is asked for each connection.
func (p byNetwork) Pick(c dispatch.Conn, ws []dispatch.Worker) int {
	if a := c.Client.Addr(); a.IsValid() { // not on a Unix socket
		bits := 64
		if a.Is4() {
			bits = 24
		}
		network, _ := a.Prefix(bits) // which an address of that kind has
		c.Client = netip.AddrPortFrom(network.Addr(), 0)
	}
	return p.hash.Pick(c, ws)
}
