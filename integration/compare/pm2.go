//go:build linux

package main

import (
	"context"
	"errors"
	"os/exec"
	"time"

	"github.com/baton-go/baton/integration/peers"
)

func pm2Missing(b *bench) string { return peers.PM2Missing(b.pm2) }

// startPM2 starts a cluster under a daemon of its own.
func startPM2(ctx context.Context, b *bench, dir string) (*server, error) {
	pm2 := &peers.PM2{
		Program: b.pm2, Dir: dir, Script: "server.js", Workers: b.workers(),
		// PM2's 1.6 s would cut the slow requests: as long as any takes.
		Kill: max(b.slowFor, b.streamFor) + 3*time.Second,
	}
	s, err := pm2.Start(ctx)
	return &server{s, func(ctx context.Context) (bool, error) {
		err := pm2.Command(ctx, "reload", "app")
		var status *exec.ExitError
		if ctx.Err() == nil && errors.As(err, &status) {
			return false, nil
		}
		return err == nil, err
	}}, err
}
