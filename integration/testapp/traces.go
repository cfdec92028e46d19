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
// and of every USR1 that a worker or a master gets, in the log.
func init() {
	if path := os.Getenv("TESTAPP_STARTS"); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintln(f, framework.Role(), os.Getpid())
		f.Close()
	}
	who := "worker %s got USR1\n"
	switch framework.Role() {
	case framework.RoleWorker:
	case framework.RoleMaster:
		who = "a master%s hears USR1\n"
	default:
		return
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		for range usr1 {
			log.Printf("testapp: "+who, framework.WorkerID())
		}
	}()
}
