//go:build linux

package main

import (
	"context"
	"syscall"

	"github.com/baton-go/baton/integration/peers"
)

func nginxMissing(b *bench) string { return peers.NginxMissing(b.nginx) }

// startNginx starts nginx as a reverse proxy in front of a server that is never
// restarted, so that what is lost is lost by nginx.
func startNginx(ctx context.Context, b *bench, dir string) (*server, error) {
	plain, err := peers.StartPlain(ctx, b.bin, dir)
	if err != nil {
		return nil, err
	}
	s, master, err := peers.StartNginx(ctx, b.nginx, dir, b.workers(), plain.Addr)
	if err != nil {
		return nil, err
	}
	end := s.End
	s.End = func() {
		end()
		plain.End()
	}
	reloads := 0
	return &server{s, func(ctx context.Context) (bool, error) {
		if err := master.Signal(syscall.SIGHUP); err != nil {
			return false, err
		}
		// It tells nobody when it is done; its log says that it is at it.
		reloads++
		return true, peers.Until(ctx, "wait for nginx to reload", func() bool {
			return peers.CountLines(peers.NginxLog(dir), "reconfiguring") >= reloads
		})
	}}, nil
}
