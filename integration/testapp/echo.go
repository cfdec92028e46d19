//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/testapp/config"
)

// echoService sends every line back; the line "who" is answered with the
// worker, the version and the pid. Or it has sessions.
func echoService(cfg config.Config, fail string, talks *sessions) func(context.Context, framework.Listeners) error {
	return func(ctx context.Context, ls framework.Listeners) error {
		if err := failInBuild(ctx, fail); err != nil {
			return err
		}
		talks.ctx = ctx
		serve := func(c net.Conn, _ string) { echoLines(c, cfg.Version) }
		if cfg.Sessions {
			serve = func(c net.Conn, listener string) { talks.run(c, listener, nil, 0) }
		}
		var all sync.WaitGroup
		for name, ln := range ls.All() {
			all.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return // a drain ends Accept when nothing is left
					}
					all.Go(func() { serve(c, name) })
				}
			})
		}
		all.Wait()
		return nil
	}
}

func echoLines(c net.Conn, version string) {
	defer c.Close()
	lines := bufio.NewReader(c)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if line == "who\n" {
			line = fmt.Sprintf("%s %s %d\n", framework.WorkerID(), version, os.Getpid())
		}
		if _, err := c.Write([]byte(line)); err != nil {
			return
		}
	}
}
