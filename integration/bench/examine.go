//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/baton-go/baton/integration/peers/tiny"
)

// An examination has the answers of a server, by what was asked for.
type examination map[string]answer

type answer struct {
	headers []string // names, sorted
	head    int      // bytes of status line and headers
	body    int64
}

func examine(addr string) (examination, error) {
	found := make(examination)
	for _, path := range []string{tiny.Hello, tiny.MiB, tiny.File} {
		a, err := ask(addr, path)
		if err != nil {
			return found, fmt.Errorf("GET %s: %w", path, err)
		}
		found[path] = a
	}
	return found, nil
}

func ask(addr, path string) (a answer, err error) {
	c, err := net.DialTimeout("tcp", addr, idleTimeout)
	if err != nil {
		return a, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(idleTimeout)); err != nil {
		return a, err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr); err != nil {
		return a, err
	}
	in := bufio.NewReader(c)
	var head strings.Builder
	for line := ""; line != "\r\n"; head.WriteString(line) {
		if line, err = in.ReadString('\n'); err != nil {
			return a, fmt.Errorf("read the head: %w", err)
		}
		if name, _, ok := strings.Cut(line, ":"); ok {
			a.headers = append(a.headers, textproto.CanonicalMIMEHeaderKey(name))
		}
	}
	slices.Sort(a.headers)
	a.head = head.Len()
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(head.String()), in)), nil)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s", resp.Status)
	}
	a.body, err = io.Copy(io.Discard, resp.Body)
	return a, err
}

// check requires the same bodies.
func (e examination) check(want examination) error {
	for path, a := range want {
		if have := e[path].body; have != a.body {
			return fmt.Errorf("GET %s: have a body of %d bytes, want %d", path, have, a.body)
		}
	}
	return nil
}

// differs says how the head of an answer differs, "" if it does not.
func (e examination) differs(want examination) string {
	have, plain := e[tiny.Hello], want[tiny.Hello]
	var parts []string
	for _, h := range have.headers {
		if !slices.Contains(plain.headers, h) {
			parts = append(parts, "sends "+h)
		}
	}
	for _, h := range plain.headers {
		if !slices.Contains(have.headers, h) {
			parts = append(parts, "lacks "+h)
		}
	}
	if n := have.head - plain.head; n != 0 {
		parts = append(parts, fmt.Sprintf("%+d bytes", n))
	}
	return strings.Join(parts, ", ")
}
