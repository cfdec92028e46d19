//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// idle are connections that have been answered once and wait.
type idle []net.Conn

const (
	idleDialers = 32
	idleTimeout = 10 * time.Second // of a dial and one answer
)

func openIdle(ctx context.Context, addr string, n int) (idle, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var from dialer
	conns, errs := make(idle, n), make([]error, idleDialers)
	var wg sync.WaitGroup
	for d := range idleDialers {
		wg.Go(func() {
			for i := d; i < n && errs[d] == nil; i += idleDialers {
				if conns[i], errs[d] = openOne(ctx, &from, addr); errs[d] != nil {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			conns.close()
			return nil, fmt.Errorf("open an idle connection: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		conns.close()
		return nil, err
	}
	return conns, nil
}

func openOne(ctx context.Context, from *dialer, addr string) (net.Conn, error) {
	c, err := from.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := askOnce(c, addr); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func askOnce(c net.Conn, addr string) error {
	if err := c.SetDeadline(time.Now().Add(idleTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// closed counts those whose end the server has sent.
func (cs idle) closed() int {
	ended := make([]int, len(cs))
	var wg sync.WaitGroup
	for i, c := range cs {
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				ended[i] = 1
			}
		})
	}
	wg.Wait()
	n := 0
	for _, e := range ended {
		n += e
	}
	return n
}

func (cs idle) close() {
	for _, c := range cs {
		if c != nil {
			c.Close()
		}
	}
}
