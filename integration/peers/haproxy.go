//go:build linux

package peers

import (
	"context"
	_ "embed"
	"os/exec"
	"path/filepath"
	"syscall"
)

//go:embed servers/haproxy.cfg
var haproxyConf string

// HAProxyMissing says how to get HAProxy, unless it is installed.
func HAProxyMissing(program string) string {
	if _, err := exec.LookPath(program); err != nil {
		return "HAProxy is not installed (`apt-get install haproxy`, or `-haproxy path`)"
	}
	return ""
}

// StartHAProxy starts HAProxy, one process with as many threads as workers, in
// front of the upstreams.
func StartHAProxy(ctx context.Context, program, dir string, workers int, upstreams ...string) (*Server, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "haproxy.cfg")
	err = configure(conf, haproxyConf, map[string]any{"Workers": workers, "Addr": addr, "Upstreams": upstreams})
	if err != nil {
		return nil, err
	}
	if program, err = exec.LookPath(program); err != nil {
		return nil, err
	}
	p, err := Launch(dir, nil, program, "-db", "-f", conf)
	if err != nil {
		return nil, err
	}
	return &Server{
		Addr:    addr,
		Version: "HAProxy " + Said(ctx, `version (\S+)`, program, "-v"),
		End:     func() { _ = p.Signal(syscall.SIGTERM) },
	}, nil
}
