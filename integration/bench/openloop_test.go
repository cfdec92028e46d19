//go:build linux

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/peers/tiny"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

func TestLatencyCountsFromWhenARequestWasDue(t *testing.T) {
	s := &schedule{interval: 10 * time.Millisecond, began: time.Now()}
	for _, c := range []struct {
		name       string
		seq        uint64
		sent, took time.Duration // sent after the beginning
		want       time.Duration
	}{
		{"sent on time", 3, 30 * time.Millisecond, time.Millisecond, time.Millisecond},
		{"sent late", 3, 80 * time.Millisecond, time.Millisecond, 51 * time.Millisecond},
		{"sent a little early", 3, 29 * time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond},
	} {
		r := &vegeta.Result{Seq: c.seq, Timestamp: s.began.Add(c.sent), Latency: c.took}
		if have := s.latency(r); have != c.want {
			t.Errorf("%s: have %v, want %v", c.name, have, c.want)
		}
	}
}

func TestPaceCatchesUp(t *testing.T) {
	s := &schedule{interval: 10 * time.Millisecond}
	if wait, _ := s.Pace(0, 0); wait != 0 || s.began.IsZero() {
		t.Errorf("the first waits %v, from %v", wait, s.began)
	}
	if wait, _ := s.Pace(3*time.Millisecond, 1); wait != 7*time.Millisecond {
		t.Errorf("the next waits %v", wait)
	}
	if wait, stop := s.Pace(time.Second, 2); wait > 0 || stop {
		t.Errorf("a late one waits %v, %v", wait, stop)
	}
}

// A server that stands still for a while delays all that is due meanwhile. Who
// sends the next request when the last is answered sees one slow request.
func TestOpenLoopSeesAPauseAsItsUsersDo(t *testing.T) {
	const pause, interval, duration = 200 * time.Millisecond, 2 * time.Millisecond, 400 * time.Millisecond
	var n atomic.Int64
	resume := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(tiny.Worker, "w")
		switch n.Add(1) {
		case 1:
			time.AfterFunc(pause, func() { close(resume) })
		}
		<-resume
	}))
	defer srv.Close()
	a := openLoop(t.Context(), srv.URL, true, interval, duration)
	if a.errors > 0 || a.workers["w"] != len(a.latencies) {
		t.Errorf("have %d errors, %d answers, by worker %v", a.errors, len(a.latencies), a.workers)
	}
	// Half of the requests were due in the pause, and waited half of it and more.
	slow := 0
	for _, l := range a.latencies {
		if l > pause/4 {
			slow++
		}
	}
	if want := int(pause / interval / 2); slow < want {
		t.Errorf("have %d slow answers of %d, want %d or more", slow, len(a.latencies), want)
	}
}

func TestOpenLoopEndsWhenItIsInterrupted(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if a := openLoop(ctx, srv.URL, false, time.Millisecond, time.Minute); a.errors != len(a.latencies) {
		t.Errorf("have %d errors, want all of %d", a.errors, len(a.latencies))
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestIdleConnectionsThatTheServerClosesAreCounted(t *testing.T) {
	srv := httptest.NewServer(tiny.Handler("1", ""))
	defer srv.Close()
	conns, err := openIdle(t.Context(), srv.Listener.Addr().String(), 40)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.close()
	if n := conns.closed(); n != 0 {
		t.Errorf("have %d closed, want 0", n)
	}
	srv.CloseClientConnections()
	if n := conns.closed(); n != 40 {
		t.Errorf("have %d closed, want 40", n)
	}
}

// clientCounter is a server, and how many client addresses it has seen.
func clientCounter(t *testing.T) (url string, seen func() int) {
	t.Helper()
	var from sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		from.Store(host, true)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() (n int) {
		for range from.Range {
			n++
		}
		return n
	}
}

func TestClientsHaveManyAddresses(t *testing.T) {
	url, seen := clientCounter(t)
	a := openLoop(t.Context(), url, false, time.Millisecond, 200*time.Millisecond)
	if n := seen(); n < min(clients, len(a.latencies)) {
		t.Errorf("have %d addresses of %d connections", n, len(a.latencies))
	}
}

func TestWrkHasManyAddresses(t *testing.T) {
	b := &bench{settings: &settings{wrk: "wrk"}}
	var err error
	if b.preload, err = preload(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("wrk"); err != nil || b.preload == "" {
		t.Skip("needs wrk and a C compiler")
	}
	url, seen := clientCounter(t)
	c, err := b.saturate(t.Context(), 200*time.Millisecond, 20, url)
	if err != nil || c.requests == 0 || c.errors > 0 {
		t.Fatalf("have %+v, %v", c, err)
	}
	if n := seen(); n < 20 {
		t.Errorf("have %d addresses of 20 connections", n)
	}
}
