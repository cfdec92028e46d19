// Plain is net/http and nothing else. It is never restarted.
package main

import (
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/peers/tiny"
)

func main() {
	file := flag.String("tiny", "", "be fast rather than versatile, with the file at `path`")
	flag.Parse()
	handler := load.Handler("plain")
	if *file != "" {
		handler = tiny.Handler(strconv.Itoa(os.Getpid()), *file)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	log.Println("listening on", ln.Addr())
	log.Fatal(http.Serve(ln, handler))
}
