// Baton is the service of this repository in the comparison.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/peers/tiny"
)

func main() {
	h2c := flag.Bool("h2c", false, "speak HTTP/2 without TLS, too")
	file := flag.String("tiny", "", "be fast rather than versatile, with the file at `path`")
	flag.Parse()
	build := func(context.Context) (http.Handler, error) {
		if *file != "" {
			return tiny.Handler(framework.WorkerID(), *file), nil
		}
		return load.Handler(framework.WorkerID()), nil
	}
	err := framework.RunFunc(build, framework.Listen("tcp", "127.0.0.1:0"), framework.HTTPServer(func(s *http.Server) {
		if *h2c {
			s.Protocols = new(http.Protocols)
			s.Protocols.SetHTTP1(true)
			s.Protocols.SetUnencryptedHTTP2(true)
		}
	}))
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}
