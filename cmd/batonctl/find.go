package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/rundir"
)

// probeTime bounds the look at one candidate; a unix socket answers at once, or
// its queue is full.
const probeTime = time.Second

// findSocket chooses the service to talk to.
func findSocket(socket, dir string, getenv func(string) string) (string, error) {
	switch {
	case socket != "":
		return socket, nil
	case dir != "":
		return rundir.SocketPath(dir), nil
	}
	if d := rundir.FromEnv(getenv); d != "" {
		return rundir.SocketPath(d), nil
	}
	dirs := rundir.Candidates(getenv, os.Geteuid())
	var live []string
	for _, d := range dirs {
		if answers(rundir.SocketPath(d)) {
			live = append(live, d)
		}
	}
	switch {
	case len(live) == 1:
		return rundir.SocketPath(live[0]), nil
	case len(live) > 1:
		for i, d := range live {
			live[i] = d + whose(d)
		}
		return "", &failure{exitUsage, fmt.Errorf("several services answer, choose one by --runtime-dir:\n  %s", strings.Join(live, "\n  "))}
	case len(dirs) == 1 && rundir.Left(dirs[0]) > 0:
		return rundir.SocketPath(dirs[0]), nil // nobody answers there, but somebody serves
	case len(dirs) > 0:
		for i, d := range dirs {
			dirs[i] = d + left(d)
		}
		return "", fmt.Errorf("%w: nobody answers in\n  %s", control.ErrNoService, strings.Join(dirs, "\n  "))
	}
	return "", fmt.Errorf("%w: there is none in the default places; give --runtime-dir or --socket", control.ErrNoService)
}

// whose tells which service answers in dir, "" if it does not say.
func whose(dir string) string {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	st, err := control.NewClient(rundir.SocketPath(dir)).Status(ctx)
	if err != nil {
		return ""
	}
	var addresses []string
	for _, l := range st.Listeners {
		addresses = append(addresses, l.Address)
	}
	return fmt.Sprintf(" (%s, pid %d, on %s)", st.Master.Binary.Path, st.Master.PID, strings.Join(addresses, ", "))
}

// left says that workers go on in dir without a master, "" if none do.
func left(dir string) string {
	if n := rundir.Left(dir); n > 0 {
		return fmt.Sprintf(" (no master; %d workers go on until one is started)", n)
	}
	return ""
}

// answers is whether somebody may be listening: everything but an outright
// failure to connect counts, so that a busy service is not passed over for
// another one.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, probeTime)
	if err == nil {
		c.Close()
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
