//go:build linux

package main

import (
	"context"
	"fmt"
	"syscall"

	"github.com/baton-go/baton/integration/peers"
	"github.com/baton-go/baton/internal/control"
)

// A batonDeploy is a signal, and what counts those that are done.
type batonDeploy struct {
	signal syscall.Signal
	done   func(control.Status) int
}

var (
	batonReload  = batonDeploy{syscall.SIGHUP, servingGeneration}
	batonUpgrade = batonDeploy{syscall.SIGUSR2, func(st control.Status) int { return st.Master.Upgrades }}
)

// servingGeneration is 0 while there is none.
func servingGeneration(st control.Status) int {
	for _, g := range st.Generations {
		if g.State == control.GenerationServing {
			return g.Number
		}
	}
	return 0
}

func startBaton(d batonDeploy, args ...string) func(context.Context, *bench, string) (*server, error) {
	return func(ctx context.Context, b *bench, dir string) (*server, error) {
		s, client, st, err := peers.StartBaton(ctx, b.bin, dir, nil, args...)
		if err != nil {
			return &server{Server: s}, err
		}
		s.End = func() { _ = syscall.Kill(st.Master.PID, syscall.SIGTERM) }
		return &server{s, func(ctx context.Context) (bool, error) {
			before, last := d.done(st), st.LastDeploy
			if err := syscall.Kill(st.Master.PID, d.signal); err != nil {
				return false, fmt.Errorf("signal the master: %w", err)
			}
			refused := func() bool {
				v := st.LastDeploy
				return v != nil && !v.OK && (last == nil || *v != *last)
			}
			// Between two masters there may be no answer.
			err := peers.Until(ctx, "wait for Baton to serve", func() bool {
				var err error
				st, err = client.Status(ctx)
				return err == nil && st.State == control.StateServing && (d.done(st) > before || refused())
			})
			return d.done(st) > before, err
		}}, nil
	}
}
