//go:build linux

package peers

import (
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed servers/server.js servers/tiny.js servers/ecosystem.config.js
var pm2Files embed.FS

// PM2Missing says how to get PM2, unless it is installed.
func PM2Missing(program string) string {
	if missing := NodeMissing(); missing != "" {
		return missing
	}
	if _, err := exec.LookPath(program); err != nil {
		return "PM2 is not installed (`npm i --prefix /tmp/pm2 pm2`, then `-pm2 /tmp/pm2/node_modules/.bin/pm2`)"
	}
	return ""
}

// A PM2 is what is started under a daemon of its own.
type PM2 struct {
	Program string
	Dir     string
	Script  string // server.js or tiny.js
	Workers int
	Kill    time.Duration // how long a worker may take to end
	Env     []string      // of the workers

	port string
}

// Start starts a cluster. When the server is not nil, it is to be ended even if
// there is an error.
func (p *PM2) Start(ctx context.Context) (*Server, error) {
	for _, name := range []string{p.Script, "ecosystem.config.js"} {
		text, err := pm2Files.ReadFile("servers/" + name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(p.Dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	if _, p.port, err = net.SplitHostPort(addr); err != nil {
		return nil, err
	}
	s := &Server{
		Addr: addr,
		End: func() {
			ctx, cancel := context.WithTimeout(context.Background(), StartTime)
			defer cancel()
			_ = p.Command(ctx, "kill")
		},
	}
	if err := p.Command(ctx, "start", "ecosystem.config.js"); err != nil {
		return s, err
	}
	version, err := WaitLine(ctx, filepath.Join(p.Dir, "pm2", "pm2.log"), "PM2 version          : ")
	s.Version = NodeVersion(ctx) + ", PM2 " + version
	return s, err
}

// Command runs pm2 with a home of its own. Its output goes to the log.
func (p *PM2) Command(ctx context.Context, args ...string) error {
	program, err := exec.LookPath(p.Program)
	if err != nil {
		return err
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	f, err := os.OpenFile(LogPath(p.Dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.Dir, f, f, Apart()
	cmd.Env = append(os.Environ(),
		"PM2_HOME="+filepath.Join(p.Dir, "pm2"), "HOME="+p.Dir, "PM2_DISABLE_VERSION_CHECK=true",
		"PORT="+p.port, "WORKERS="+strconv.Itoa(p.Workers), "SCRIPT="+p.Script,
		"KILL_TIMEOUT="+strconv.FormatInt(p.Kill.Milliseconds(), 10))
	cmd.Env = append(cmd.Env, p.Env...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pm2 %s: %w", args[0], err)
	}
	return nil
}
