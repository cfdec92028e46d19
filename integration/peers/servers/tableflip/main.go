//go:build unix

// Tableflip is a server made as tableflip's own documentation has it, with
// tableflip and http.Server.Shutdown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/peers/tiny"
	"github.com/cloudflare/tableflip"
)

func main() {
	pidFile := flag.String("pid-file", "", "`path` of the pid file")
	file := flag.String("tiny", "", "be fast rather than versatile, with the file at `path`")
	flag.Parse()
	handler := load.Handler(strconv.Itoa(os.Getpid()))
	if *file != "" {
		handler = tiny.Handler(strconv.Itoa(os.Getpid()), *file)
	}
	log.SetPrefix(fmt.Sprintf("%d ", os.Getpid()))

	upg, err := tableflip.New(tableflip.Options{PIDFile: *pidFile})
	if err != nil {
		log.Fatal(err)
	}
	defer upg.Stop()

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			// The comparison counts these lines.
			if err := upg.Upgrade(); err != nil {
				log.Println("upgrade refused:", err)
			} else {
				log.Println("upgrade done")
			}
		}
	}()

	ln, err := upg.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: handler}
	go func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Println("serve:", err)
		}
	}()
	if err := upg.Ready(); err != nil {
		log.Fatal(err)
	}
	log.Println("listening on", ln.Addr())
	<-upg.Exit()

	// No new upgrade can be made before this process has exited.
	time.AfterFunc(30*time.Second, func() {
		log.Println("shutdown timed out")
		os.Exit(1)
	})
	if err := server.Shutdown(context.Background()); err != nil {
		log.Println("shutdown:", err)
	}
}
