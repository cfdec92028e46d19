//go:build linux

package peers

import (
	"context"
	"path/filepath"
	"syscall"
)

// StartFasthttp starts servers/fasthttp, whose workers are as many as there are
// CPUs.
func StartFasthttp(ctx context.Context, bin, dir string, workers int, file string) (*Server, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(bin, "fasthttp")
	p, err := Launch(dir, nil, program, "-addr", addr, "-tiny", file)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Addr:    addr,
		Version: "fasthttp " + ModuleVersion(program, "github.com/valyala/fasthttp"),
		End:     func() { _ = p.Signal(syscall.SIGTERM) },
	}
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	return s, UntilServing(ctx, "wait for the workers of fasthttp", p, func() bool {
		return CountLines(LogPath(dir), "worker ") == workers
	})
}
