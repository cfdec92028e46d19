//go:build linux

package main

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
)

//go:embed servers/nginx.conf
var nginxConf string

func nginxMissing(b *bench) string {
	if _, err := exec.LookPath(b.nginx); err != nil {
		return "nginx is not installed (`apt-get install nginx`, or `-nginx path`)"
	}
	return ""
}

// startNginx starts nginx as a reverse proxy in front of a server that is never
// restarted, so that what is lost is lost by nginx.
func startNginx(ctx context.Context, b *bench, dir string) (*server, error) {
	if _, err := launch(dir, nil, filepath.Join(b.bin, "plain")); err != nil {
		return nil, err
	}
	upstream, err := waitLine(ctx, logPath(dir), "listening on ")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	var conf strings.Builder
	err = template.Must(template.New("").Parse(nginxConf)).Execute(&conf, map[string]any{
		"Root": os.Getuid() == 0, "Workers": b.workers(), "Dir": dir, "Addr": addr, "Upstream": upstream,
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf.String()), 0o600); err != nil {
		return nil, err
	}
	nginxLog := filepath.Join(dir, "error.log")
	program, err := exec.LookPath(b.nginx)
	if err != nil {
		return nil, err
	}
	master, err := launch(dir, nil, program, "-p", dir, "-e", nginxLog, "-c", path)
	if err != nil {
		return nil, err
	}
	reloads := 0
	return &server{
		addr:    addr,
		version: "nginx " + said(ctx, `nginx/(\S+)`, program, "-v"),
		deploy: func(ctx context.Context) (bool, error) {
			if err := master.Signal(syscall.SIGHUP); err != nil {
				return false, err
			}
			// It tells nobody when it is done; its log says that it is at it.
			reloads++
			return true, until(ctx, "wait for nginx to reload", func() bool {
				return countLines(nginxLog, "reconfiguring") >= reloads
			})
		},
		end: func() {
			_ = master.Signal(syscall.SIGTERM)
			for _, pid := range descendants() { // the server behind it
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		},
	}, nil
}
