// Plain is the server behind nginx in the comparison. It is never restarted.
package main

import (
	"log"
	"net"
	"net/http"

	"github.com/baton-go/baton/integration/load"
)

func main() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	log.Println("listening on", ln.Addr())
	log.Fatal(http.Serve(ln, load.Handler("plain")))
}
