// Hello is the smallest service: it says which worker answers.
//
//	go run ./examples/hello
//	curl localhost:8080
//	kill -HUP <pid of the master, in the answer>
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/baton-go/baton/framework"
)

func main() {
	err := framework.RunFunc(build)
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

// build is called in workers only: here an application would open its database.
func build(context.Context) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from worker %s (pid %d, master %d)\n", framework.WorkerID(), os.Getpid(), os.Getppid())
	}), nil
}
