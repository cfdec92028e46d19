//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/baton-go/baton/integration/peers"
)

// A count is what wrk counted.
type count struct {
	requests int
	took     time.Duration
	rate     float64 // requests per second
	errors   int     // sockets' and answers'
}

// saturate has wrk ask again and again on each of its connections, as fast as it is
// answered, until the time is over.
func (b *bench) saturate(ctx context.Context, duration time.Duration, connections int, url string, headers ...string) (count, error) {
	threads := min(runtime.NumCPU(), connections)
	// It knows whole seconds only, so it is interrupted, and prints the same.
	args := []string{
		"-t", strconv.Itoa(threads), "-c", strconv.Itoa(connections),
		"-d", fmt.Sprintf("%.0fs", duration.Seconds()+2), "--timeout", "10s",
	}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	cmd := exec.CommandContext(ctx, b.wrk, append(args, url)...)
	cmd.SysProcAttr = peers.Apart()
	if b.preload != "" {
		cmd.Env = append(os.Environ(), "LD_PRELOAD="+b.preload)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return count{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, duration+2*time.Second)
	err := peers.Until(bounded, "wait for wrk to run", func() bool { return catchesInterrupt(cmd.Process.Pid) })
	cancel()
	if err == nil {
		select {
		case <-ctx.Done():
		case <-time.After(duration):
		}
		err = cmd.Process.Signal(os.Interrupt)
	}
	// It ends by its own clock, in any case.
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return count{}, fmt.Errorf("wrk: %w\n%s", err, out.Bytes())
	}
	return parseWrk(out.String())
}

// catchesInterrupt is whether SIGINT no longer simply kills the process, or it
// has ended by itself.
func catchesInterrupt(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil || bytes.Contains(text, []byte("\nState:\tZ")) {
		return true
	}
	_, rest, _ := bytes.Cut(text, []byte("\nSigCgt:\t"))
	mask, _, _ := bytes.Cut(rest, []byte("\n"))
	caught, _ := strconv.ParseUint(string(mask), 16, 64)
	return caught&(1<<(syscall.SIGINT-1)) != 0
}

var (
	wrkTotal    = regexp.MustCompile(`(?m)^\s*(\d+) requests in ([\d.]+(?:us|ms|s|m|h)),`)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s+([\d.]+)$`)
	wrkSockets  = regexp.MustCompile(`(?m)^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)$`)
	wrkStatuses = regexp.MustCompile(`(?m)^\s*Non-2xx or 3xx responses: (\d+)$`)
)

func parseWrk(text string) (count, error) {
	total, rate := wrkTotal.FindStringSubmatch(text), wrkRate.FindStringSubmatch(text)
	if total == nil || rate == nil {
		return count{}, fmt.Errorf("wrk did not say how many requests: %q", strings.TrimSpace(text))
	}
	var c count
	var errs [3]error
	c.requests, errs[0] = strconv.Atoi(total[1])
	c.took, errs[1] = time.ParseDuration(total[2])
	c.rate, errs[2] = strconv.ParseFloat(rate[1], 64)
	for _, m := range [][]string{wrkSockets.FindStringSubmatch(text), wrkStatuses.FindStringSubmatch(text)} {
		for _, digits := range m[min(1, len(m)):] {
			n, err := strconv.Atoi(digits)
			errs[0] = errors.Join(errs[0], err)
			c.errors += n
		}
	}
	return c, errors.Join(errs[:]...)
}
