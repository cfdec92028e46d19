// Bluegreen answers with its version, so that a client sees which build serves
// it. demo.sh deploys one build over another under a running client.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/baton-go/baton/framework"
)

// version is set by go build -ldflags "-X main.version=green".
var version = "blue"

func main() {
	err := framework.RunFunc(build)
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

func build(context.Context) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, version)
	}), nil
}
