//go:build linux

package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/baton-go/baton/framework"
)

// init leaves a trace of every process, in the file that TESTAPP_STARTS names,
// and of every USR1 that a worker gets, in the log.
func init() {
	if path := os.Getenv("TESTAPP_STARTS"); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintln(f, framework.Role(), os.Getpid())
		f.Close()
	}
	if framework.Role() != framework.RoleWorker {
		return
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		for range usr1 {
			log.Printf("testapp: worker %s got USR1", framework.WorkerID())
		}
	}()
}
