//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// startTableflip starts servers/tableflip. While a process that has handed over
// still finishes its requests, tableflip refuses the next upgrade.
func startTableflip(ctx context.Context, b *bench, dir string) (*server, error) {
	pidFile := filepath.Join(dir, "pid")
	if _, err := launch(dir, nil, filepath.Join(b.bin, "tableflip"), "-pid-file", pidFile); err != nil {
		return nil, err
	}
	addr, err := waitLine(ctx, logPath(dir), "listening on ")
	if err != nil {
		return nil, err
	}
	signal := func(sig syscall.Signal) error {
		text, err := os.ReadFile(pidFile)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("pid file: %w", err)
		}
		return syscall.Kill(pid, sig)
	}
	done, refused := 0, 0
	return &server{
		addr:    addr,
		version: "tableflip " + moduleVersion(filepath.Join(b.bin, "tableflip"), "github.com/cloudflare/tableflip"),
		deploy: func(ctx context.Context) (bool, error) {
			if err := signal(syscall.SIGHUP); err != nil {
				return false, err
			}
			before := done
			err := until(ctx, "wait for what becomes of the upgrade", func() bool {
				was := done + refused
				done = countLines(logPath(dir), "upgrade done")
				refused = countLines(logPath(dir), "upgrade refused")
				return done+refused > was
			})
			return done > before, err
		},
		end: func() { _ = signal(syscall.SIGTERM) },
	}, nil
}
