//go:build linux

package peers

import (
	"context"
	"path/filepath"
)

// StartPlain starts servers/plain.
func StartPlain(ctx context.Context, bin, dir string, args ...string) (*Server, error) {
	p, err := Launch(dir, nil, filepath.Join(bin, "plain"), args...)
	if err != nil {
		return nil, err
	}
	addr, err := WaitLine(ctx, LogPath(dir), "listening on ")
	return &Server{Addr: addr, End: func() { _ = p.Kill() }}, err
}
