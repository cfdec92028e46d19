//go:build linux

package peers

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

// NginxMissing says how to get nginx, unless it is installed.
func NginxMissing(program string) string {
	if _, err := exec.LookPath(program); err != nil {
		return "nginx is not installed (`apt-get install nginx`, or `-nginx path`)"
	}
	return ""
}

// NginxLog is the error log of nginx in dir.
func NginxLog(dir string) string { return filepath.Join(dir, "error.log") }

// StartNginx starts nginx in front of the upstreams, and returns its master, too.
func StartNginx(ctx context.Context, program, dir string, workers int, upstreams ...string) (*Server, *os.Process, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	err = configure(conf, nginxConf, map[string]any{
		"Root": os.Getuid() == 0, "Workers": workers, "Dir": dir, "Addr": addr, "Upstreams": upstreams,
	})
	if err != nil {
		return nil, nil, err
	}
	if program, err = exec.LookPath(program); err != nil {
		return nil, nil, err
	}
	master, err := Launch(dir, nil, program, "-p", dir, "-e", NginxLog(dir), "-c", conf)
	if err != nil {
		return nil, nil, err
	}
	return &Server{
		Addr:    addr,
		Version: "nginx " + Said(ctx, `nginx/(\S+)`, program, "-v"),
		End:     func() { _ = master.Signal(syscall.SIGTERM) },
	}, master, nil
}

// configure writes a configuration file.
func configure(path, text string, values map[string]any) error {
	var conf strings.Builder
	if err := template.Must(template.New("").Parse(text)).Execute(&conf, values); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(conf.String()), 0o600)
}
