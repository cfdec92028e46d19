//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// inFlight is a request whose answer has not been read yet.
type inFlight struct {
	c    *net.TCPConn
	r    *bufio.Reader
	path string
}

// dialTime bounds a connect on the loopback interface: the kernel completes it
// by itself, unless the queue of the listener is full.
const dialTime = 5 * time.Second

// dialService makes a connection and sends nothing.
func dialService(addr string) (*inFlight, error) {
	c, err := net.DialTimeout("tcp", addr, dialTime)
	if err != nil {
		return nil, err
	}
	return &inFlight{c: c.(*net.TCPConn), r: bufio.NewReader(c)}, nil
}

// send writes one request; the connection is kept after it.
func (f *inFlight) send(path string) error {
	f.path = path
	_, err := fmt.Fprintf(f.c, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path)
	return err
}

// answer reads the answer.
func (f *inFlight) answer(bound time.Duration) (answer, error) {
	_ = f.c.SetReadDeadline(time.Now().Add(bound))
	res, err := http.ReadResponse(f.r, nil)
	if err != nil {
		return answer{}, fmt.Errorf("GET %s from %s: %w", f.path, f.c.LocalAddr(), err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("GET %s from %s: %w", f.path, f.c.LocalAddr(), err)
	}
	return answer{res.StatusCode, res.Header.Get("X-Worker"), res.Header.Get("X-Version"), string(body)}, nil
}

// vanish resets the connection.
func (f *inFlight) vanish() {
	_ = f.c.SetLinger(0)
	_ = f.c.Close()
}

// openRequests opens n connections, one after the other, with a request on
// each. It requires that none is refused.
func (s *service) openRequests(n int, path string) []*inFlight {
	s.t.Helper()
	var all []*inFlight
	for i := range n {
		f, err := dialService(s.addr)
		if err == nil {
			s.t.Cleanup(func() { f.c.Close() })
			err = f.send(path)
		}
		if err != nil {
			s.t.Fatalf("connection %d of %d: %v", i+1, n, err)
		}
		all = append(all, f)
	}
	return all
}

// requireAnswers requires that every request is answered as it should, within
// bound for all of them, closes the connections and returns the answers.
func requireAnswers(t *testing.T, requests []*inFlight, bound time.Duration) []answer {
	t.Helper()
	var all []answer
	failed := 0
	end := time.Now().Add(bound)
	for _, f := range requests {
		a, err := f.answer(time.Until(end))
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("GET %s: status %d: %s", f.path, a.status, a.body)
		}
		f.c.Close()
		if err != nil {
			if failed++; failed <= 5 {
				t.Error(err)
			}
			continue
		}
		all = append(all, a)
	}
	if failed > 0 {
		t.Fatalf("%d of %d requests were not answered", failed, len(requests))
	}
	return all
}

// connectTo returns a connection to the worker of that id, over which one
// request has gone already.
func (s *service) connectTo(worker string) *inFlight {
	s.t.Helper()
	for range 100 {
		f := s.openRequests(1, "/")[0]
		a, err := f.answer(waitTime)
		if err != nil {
			s.t.Fatal(err)
		}
		if a.worker == worker {
			return f
		}
		f.c.Close()
	}
	s.t.Fatalf("none of 100 connections went to worker %s", worker)
	return nil
}

// number asks on a kept connection for what is answered by a number.
func (f *inFlight) number(t *testing.T, path string) int {
	t.Helper()
	var a answer
	err := f.send(path)
	if err == nil {
		a, err = f.answer(waitTime)
	}
	n := 0
	if err == nil {
		n, err = strconv.Atoi(a.body)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}
