//go:build linux

package integration

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/baton-go/baton/integration/load"
)

// answer is an answer of the test application.
type answer struct {
	status  int
	worker  string // X-Worker, such as "2.1"
	version string // X-Version
	body    string
}

// get sends one request on a connection of its own.
func (s *service) get(path string) answer {
	s.t.Helper()
	a, err := s.tryGet(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// tryGet is get for any goroutine.
func (s *service) tryGet(path string) (answer, error) {
	return ask(s.addr, path, waitTime)
}

// ask sends one request to addr, a unix socket's path or host:port.
func ask(addr, path string, bound time.Duration) (answer, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, bound)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(bound))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", path); err != nil {
		return answer{}, fmt.Errorf("GET %s: %w", path, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{}, fmt.Errorf("GET %s: %w", path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("GET %s: %w", path, err)
	}
	return answer{res.StatusCode, res.Header.Get("X-Worker"), res.Header.Get("X-Version"), string(body)}, nil
}

// start drives the service until the returned function is called, which waits
// for the requests in flight and returns the report.
func (s *service) start(c load.Config) (finish func() load.Report) {
	c.Network, c.Addr = cmp.Or(c.Network, "tcp"), cmp.Or(c.Addr, s.addr)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan load.Report, 1)
	go func() { done <- load.Run(ctx, c) }()
	finish = func() load.Report {
		cancel()
		r := <-done
		done <- r // finish may be called again
		return r
	}
	s.t.Cleanup(func() { finish() })
	return finish
}
