//go:build linux

package peers

import (
	"context"
	_ "embed"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

//go:embed servers/tiny.js
var tinyJS []byte

// NodeMissing says how to get Node, unless it is installed.
func NodeMissing() string {
	if _, err := exec.LookPath("node"); err != nil {
		return "Node is not installed (`apt-get install nodejs`)"
	}
	return ""
}

// NodeVersion is that of the Node in the path.
func NodeVersion(ctx context.Context) string { return "Node " + Said(ctx, `v(\S+)`, "node", "-v") }

// StartNode starts a cluster of servers/tiny.js with the scheduling policy, rr or
// none.
func StartNode(ctx context.Context, dir, policy string, workers int, file string) (*Server, error) {
	if err := os.WriteFile(filepath.Join(dir, "tiny.js"), tinyJS, 0o600); err != nil {
		return nil, err
	}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, err := Launch(dir, []string{
		"NODE_CLUSTER_SCHED_POLICY=" + policy, "WORKERS=" + strconv.Itoa(workers), "PORT=" + port, "TINY_FILE=" + file,
	}, "node", "tiny.js")
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: addr, Version: NodeVersion(ctx), End: func() { _ = p.Signal(syscall.SIGTERM) }}
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	return s, UntilServing(ctx, "wait for the cluster", p, func() bool {
		return CountLines(LogPath(dir), "all listening") > 0
	})
}
