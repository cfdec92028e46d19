//go:build linux

package peers

import (
	"context"
	"path/filepath"
	"syscall"

	"github.com/baton-go/baton/internal/control"
)

// StartBaton starts servers/baton, and returns it with the client of its control
// socket and its status once it serves.
func StartBaton(ctx context.Context, bin, dir string, env []string, args ...string) (*Server, *control.Client, control.Status, error) {
	run := filepath.Join(dir, "run")
	p, err := Launch(dir, append([]string{"BATON_RUNTIME_DIR=" + run}, env...), filepath.Join(bin, "baton"), args...)
	if err != nil {
		return nil, nil, control.Status{}, err
	}
	s := &Server{End: func() { _ = p.Signal(syscall.SIGTERM) }}
	client := control.NewClient(filepath.Join(run, "control.sock"))
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	var st control.Status
	err = UntilServing(ctx, "wait for Baton to serve", p, func() bool {
		st, err = client.Status(ctx)
		return err == nil && st.State == control.StateServing
	})
	if err != nil {
		return s, nil, st, err
	}
	s.Addr = st.Listeners[0].Address
	return s, client, st, nil
}
