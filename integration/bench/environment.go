//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/baton-go/baton/integration/peers"
)

// An environment is what the figures depend on, but for the servers.
type environment struct {
	Time     time.Time `json:"time"`
	Kernel   string    `json:"kernel"`
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	Allowed  string    `json:"cpus_allowed"` // their numbers
	Load     string    `json:"load_average"` // before
	Go       string    `json:"go"`
	Revision string    `json:"revision"` // of Baton
	Wrk      string    `json:"wrk"`
	Vegeta   string    `json:"vegeta"`
	Clients  int       `json:"clients"` // addresses of wrk
}

func (b *bench) environment(ctx context.Context) environment {
	e := environment{
		Time: time.Now().UTC().Truncate(time.Second), Kernel: peers.Kernel(),
		CPU: line("/proc/cpuinfo", "model name"), CPUs: runtime.NumCPU(), Allowed: line("/proc/self/status", "Cpus_allowed_list"),
		Go: runtime.Version(), Wrk: peers.Said(ctx, `wrk (\S+)`, b.wrk, "-v"), Vegeta: "unknown", Clients: 1, Revision: "unknown",
	}
	if b.preload != "" {
		e.Clients = clients
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		e.Load = strings.Join(strings.Fields(string(text))[:3], " ")
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		e.Revision = string(bytes.TrimSpace(out))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/tsenart/vegeta/v12" {
				e.Vegeta = d.Version
			}
		}
	}
	return e
}

// line is the value of the first line "name: value" in the file.
func line(path, name string) string {
	text, _ := os.ReadFile(path)
	for l := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func (e environment) String() string {
	return fmt.Sprintf("%s, Linux %s, %d CPUs (%s), wrk %s, vegeta %s", e.Go, e.Kernel, e.CPUs, e.CPU, e.Wrk, e.Vegeta)
}
