//go:build linux

package main

import (
	"context"
	"syscall"

	"github.com/baton-go/baton/integration/peers"
)

// startTableflip starts servers/tableflip. While a process that has handed over
// still finishes its requests, tableflip refuses the next upgrade.
func startTableflip(ctx context.Context, b *bench, dir string) (*server, error) {
	s, signal, err := peers.StartTableflip(ctx, b.bin, dir)
	if err != nil {
		return nil, err
	}
	done, refused := 0, 0
	return &server{s, func(ctx context.Context) (bool, error) {
		if err := signal(syscall.SIGHUP); err != nil {
			return false, err
		}
		before := done
		err := peers.Until(ctx, "wait for what becomes of the upgrade", func() bool {
			was := done + refused
			done = peers.CountLines(peers.LogPath(dir), "upgrade done")
			refused = peers.CountLines(peers.LogPath(dir), "upgrade refused")
			return done+refused > was
		})
		return done > before, err
	}}, nil
}
