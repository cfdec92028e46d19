//go:build linux

package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"sync"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/testapp/config"
)

func quirkAtStart(cfg config.Config) {
	switch cfg.Quirk {
	case config.QuirkChdir:
		if err := os.Chdir("/"); err != nil {
			log.Fatal(err)
		}
	case config.QuirkSlow:
		log.Printf("testapp: a slow %s", framework.Role())
		time.Sleep(config.SlowStart)
	case config.QuirkTalks:
		line := append(bytes.Repeat([]byte("talk "), 20), '\n')
		_, _ = os.Stderr.Write(bytes.Repeat(line, config.TalkSize/len(line)))
	}
}

// quirkyService closes its listeners in the moment that the drain begins, as
// many servers do that know of nothing better; and it paces itself, so that
// there are connections then which it has been given and has not asked for.
func quirkyService(cfg config.Config, serve func(context.Context, framework.Listeners) error) func(context.Context, framework.Listeners) error {
	if cfg.Quirk != config.QuirkCloses {
		return serve
	}
	return func(ctx context.Context, ls framework.Listeners) error {
		var all sync.WaitGroup
		for _, ln := range ls.All() {
			defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
			all.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					all.Go(func() { echoLines(c, cfg.Version) })
					<-time.After(time.Millisecond)
				}
			})
		}
		all.Wait()
		return nil
	}
}
