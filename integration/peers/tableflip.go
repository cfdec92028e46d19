//go:build linux

package peers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// StartTableflip starts servers/tableflip, and returns what signals the process
// that serves, too.
func StartTableflip(ctx context.Context, bin, dir string, args ...string) (*Server, func(syscall.Signal) error, error) {
	pidFile, program := filepath.Join(dir, "pid"), filepath.Join(bin, "tableflip")
	if _, err := Launch(dir, nil, program, append([]string{"-pid-file", pidFile}, args...)...); err != nil {
		return nil, nil, err
	}
	addr, err := WaitLine(ctx, LogPath(dir), "listening on ")
	if err != nil {
		return nil, nil, err
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
	return &Server{
		Addr:    addr,
		Version: "tableflip " + ModuleVersion(program, "github.com/cloudflare/tableflip"),
		End:     func() { _ = signal(syscall.SIGTERM) },
	}, signal, nil
}
