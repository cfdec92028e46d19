//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// h2load runs h2load against HTTP/2 connections that Baton is reloaded under,
// and prints its verdict. It is a report and no judgement.
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
	// Its time limit counts from the first connection.
	loaded, cancel := context.WithTimeout(ctx, b.duration)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-D", strconv.Itoa(int(max(1, b.duration/time.Second))), "-c", "16", "-m", "8", "http://"+s.addr+"/")
	cmd.SysProcAttr = apart()
	type result struct {
		out []byte
		err error
	}
	results := make(chan result, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		results <- result{out, err}
	}()
	done, refused, err := deployEvery(ctx, loaded, b.every, s)
	r := <-results
	fmt.Fprintf(stdout, "\nh2load through %d reloads of Baton (%d refused):\n%s", done, refused, r.out)
	return errors.Join(err, r.err)
}
