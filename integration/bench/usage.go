//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/baton-go/baton/integration/peers"
	"golang.org/x/sys/unix"
)

// A usage is CPU time that has been used until some moment.
type usage struct {
	server      time.Duration // user and system, of all its processes
	own         time.Duration // of this process and of what it has waited for
	busy, total time.Duration // of all CPUs
}

// use reads what the server and everyone else have used. Only the server's
// processes may descend from this one at that moment.
func use() (usage, error) {
	u := usage{}
	for _, pid := range peers.Descendants() {
		// With what their children have used that they have waited for.
		u.server += peers.CPUTime(pid)
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err != nil {
			return u, fmt.Errorf("getrusage: %w", err)
		}
		u.own += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	// cpu user nice system idle iowait irq softirq steal guest …; guest is in user.
	f := bytes.Fields(text)
	if len(f) < 9 || string(f[0]) != "cpu" {
		return u, errors.New("/proc/stat: no line of all CPUs")
	}
	for i, field := range f[1:9] {
		n, err := strconv.Atoi(string(field))
		if err != nil {
			return u, fmt.Errorf("/proc/stat: %w", err)
		}
		u.total += time.Duration(n) * peers.Tick
		if i != 3 && i != 4 {
			u.busy += time.Duration(n) * peers.Tick
		}
	}
	return u, nil
}

// since returns the CPU time of the server since before, and the share of all
// CPUs that neither it nor this process had.
func (u usage) since(before usage) (server time.Duration, others float64, err error) {
	server = u.server - before.server
	if server < 0 {
		return 0, 0, errors.New("a process of the server has ended meanwhile")
	}
	if total := u.total - before.total; total > 0 {
		foreign := u.busy - before.busy - server - (u.own - before.own)
		others = max(0, float64(foreign)/float64(total))
	}
	return server, others, nil
}
