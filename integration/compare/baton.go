//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

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
		run := filepath.Join(dir, "run")
		if _, err := launch(dir, []string{"BATON_RUNTIME_DIR=" + run}, filepath.Join(b.bin, "baton"), args...); err != nil {
			return nil, err
		}
		client := control.NewClient(filepath.Join(run, "control.sock"))
		var st control.Status
		// Between two masters there may be no answer.
		serving := func(ctx context.Context, f func() bool) error {
			return until(ctx, "wait for Baton to serve", func() bool {
				var err error
				st, err = client.Status(ctx)
				return err == nil && st.State == control.StateServing && f()
			})
		}
		bounded, cancel := context.WithTimeout(ctx, startTime)
		defer cancel()
		if err := serving(bounded, func() bool { return true }); err != nil {
			return nil, err
		}
		return &server{
			addr: st.Listeners[0].Address,
			deploy: func(ctx context.Context) (bool, error) {
				before, last := d.done(st), st.LastDeploy
				if err := syscall.Kill(st.Master.PID, d.signal); err != nil {
					return false, fmt.Errorf("signal the master: %w", err)
				}
				refused := func() bool {
					v := st.LastDeploy
					return v != nil && !v.OK && (last == nil || *v != *last)
				}
				if err := serving(ctx, func() bool { return d.done(st) > before || refused() }); err != nil {
					return false, err
				}
				return d.done(st) > before, nil
			},
			end: func() { _ = syscall.Kill(st.Master.PID, syscall.SIGTERM) },
		}, nil
	}
}
