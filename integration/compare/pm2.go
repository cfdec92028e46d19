//go:build linux

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed servers/server.js servers/ecosystem.config.js
var pm2Files embed.FS

func pm2Missing(b *bench) string {
	if _, err := exec.LookPath("node"); err != nil {
		return "Node is not installed (`apt-get install nodejs`)"
	}
	if _, err := exec.LookPath(b.pm2); err != nil {
		return "PM2 is not installed (`npm i --prefix /tmp/pm2 pm2`, then `-pm2 /tmp/pm2/node_modules/.bin/pm2`)"
	}
	return ""
}

// startPM2 starts a cluster under a daemon of its own.
func startPM2(ctx context.Context, b *bench, dir string) (*server, error) {
	for _, name := range []string{"server.js", "ecosystem.config.js"} {
		text, err := pm2Files.ReadFile("servers/" + name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	pm2 := func(ctx context.Context, args ...string) error {
		return b.pm2Command(ctx, dir, []string{
			"PORT=" + port,
			"WORKERS=" + strconv.Itoa(b.workers()),
			// PM2's 1.6 s would cut the slow requests: as long as any takes.
			"KILL_TIMEOUT=" + strconv.FormatInt((max(b.slowFor, b.streamFor)+3*time.Second).Milliseconds(), 10),
		}, args...)
	}
	s := &server{
		addr: addr,
		deploy: func(ctx context.Context) (bool, error) {
			err := pm2(ctx, "reload", "app")
			var status *exec.ExitError
			if ctx.Err() == nil && errors.As(err, &status) {
				return false, nil
			}
			return err == nil, err
		},
		end: func() {
			ctx, cancel := context.WithTimeout(context.Background(), startTime)
			defer cancel()
			_ = pm2(ctx, "kill")
		},
	}
	if err := pm2(ctx, "start", "ecosystem.config.js"); err != nil {
		return s, err
	}
	version, err := waitLine(ctx, filepath.Join(dir, "pm2", "pm2.log"), "PM2 version          : ")
	s.version = "Node " + said(ctx, `v(\S+)`, "node", "-v") + ", PM2 " + version
	return s, err
}

// pm2Command runs pm2 with a home of its own in dir. Its output goes to the log.
func (b *bench) pm2Command(ctx context.Context, dir string, env []string, args ...string) error {
	program, err := exec.LookPath(b.pm2)
	if err != nil {
		return err
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	f, err := os.OpenFile(logPath(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, f, f, apart()
	cmd.Env = append(append(os.Environ(), "PM2_HOME="+filepath.Join(dir, "pm2"), "HOME="+dir, "PM2_DISABLE_VERSION_CHECK=true"), env...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pm2 %s: %w", args[0], err)
	}
	return nil
}
