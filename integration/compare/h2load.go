//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/baton-go/baton/integration/peers"
)

// h2load runs h2load against HTTP/2 connections that Baton is reloaded under,
// and prints what it says. It is a report and no judgement. A client of h2load
// stops for good when it is told to go away, and reports one request as failed
// that it has not sent; so h2load runs anew for each reload.
func (b *bench) h2load(ctx context.Context, stdout io.Writer) (err error) {
	program, err := exec.LookPath("h2load")
	if err != nil {
		return errors.New("it is not installed (apt-get install nghttp2-client)")
	}
	dir := filepath.Join(b.dir, "h2load")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var s *server
	defer func() {
		if e := endAll(s); err == nil {
			err = e
		}
		_ = os.RemoveAll(dir)
	}()
	if s, err = startBaton(batonReload, "-h2c")(ctx, b, dir); err != nil {
		return err
	}
	loaded, cancel := context.WithTimeout(ctx, b.duration)
	defer cancel()
	type result struct {
		done, refused int
		err           error
	}
	results := make(chan result, 1)
	go func() {
		done, refused, err := deployEvery(ctx, loaded, b.every, s)
		results <- result{done, refused, err}
	}()
	took := b.every * 3 / 2 // a reload falls into each run
	fmt.Fprintf(stdout, "\nh2load through reloads of Baton, %v each time:\n", took)
	for loaded.Err() == nil && err == nil {
		err = h2loadOnce(ctx, program, took, s.Addr, stdout)
	}
	cancel()
	r := <-results
	fmt.Fprintf(stdout, "%d reloads, %d refused\n", r.done, r.refused)
	return errors.Join(err, r.err)
}

func h2loadOnce(ctx context.Context, program string, took time.Duration, addr string, stdout io.Writer) error {
	cmd := exec.CommandContext(ctx, program, "-D", fmt.Sprintf("%dms", took.Milliseconds()), "-c", "16", "-m", "8", "http://"+addr+"/")
	cmd.SysProcAttr = peers.Apart()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte("requests: ")) || bytes.HasPrefix(line, []byte("status codes: ")) {
			fmt.Fprintf(stdout, "%s", line)
		}
	}
	if n := bytes.Count(out, []byte("Process Request Failure")); n > 0 {
		fmt.Fprintf(stdout, "clients told to go away: %d\n", n)
	}
	return nil
}
