//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/baton-go/baton/integration/peers/tiny"
)

// A load is a way to ask a server.
type load struct {
	name  string // in -loads
	title string // in tables
	what  string // in a sentence

	wrk  *closedLoop // one of the two
	open *openRate
}

// A closedLoop saturates the server: wrk sends the next request on a connection
// when it has the answer to the last.
type closedLoop struct {
	path        string
	connections int
	headers     []string
	idle        bool // beside the idle connections
}

// An openRate asks at half of what net/http can, and looks at the latencies.
type openRate struct {
	keepAlive bool
}

const (
	perConn     = "per-conn"
	keepAlive   = "keep-alive"
	mib         = "mib"
	file        = "file"
	latency     = "latency"
	connLatency = "latency-per-conn"
)

// loads are in the order of the tables.
var loads = []load{
	{name: perConn, title: "connection per request", what: "32 clients with a connection for each request",
		wrk: &closedLoop{path: tiny.Hello, connections: 32, headers: []string{"Connection: close"}}},
	{name: keepAlive, title: "keep-alive", what: "64 kept connections",
		wrk: &closedLoop{path: tiny.Hello, connections: 64}},
	{name: "idle", title: "idle and busy", what: "8 busy connections beside %d idle ones",
		wrk: &closedLoop{path: tiny.Hello, connections: 8, idle: true}},
	{name: mib, title: "1 MiB", what: "1 MiB from memory on 8 kept connections",
		wrk: &closedLoop{path: tiny.MiB, connections: 8}},
	{name: file, title: "1 MiB file", what: "a file of 1 MiB on 8 kept connections",
		wrk: &closedLoop{path: tiny.File, connections: 8}},
	{name: latency, title: "keep-alive", open: &openRate{keepAlive: true}},
	{name: connLatency, title: "connection per request", open: &openRate{}},
}

// A sample is what was measured of one peer under one load in one round.
type sample struct {
	Round int    `json:"round"`
	Load  string `json:"load"`
	Peer  string `json:"peer"`

	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`
	Rate     float64 `json:"rate"`             // requests per second
	CPU      float64 `json:"cpu_per_1000"`     // seconds of the server's processes
	Others   float64 `json:"cpu_share_others"` // of all CPUs: neither the server's nor the generator's

	// Of open loops only, the latencies in milliseconds.
	P50     float64        `json:"p50_ms,omitempty"`
	P99     float64        `json:"p99_ms,omitempty"`
	Max     float64        `json:"max_ms,omitempty"`
	Workers map[string]int `json:"requests_by_worker,omitempty"`
}

// warmUp is how long a load runs before it is measured: runtimes compile and
// grow their heaps first.
func (b *bench) warmUp() time.Duration { return min(b.duration/2, time.Second) }

// run has the server at addr under the load and measures it.
func (l load) run(ctx context.Context, b *bench, addr string) (sample, error) {
	if l.open != nil {
		return l.open.run(ctx, b, l.name, addr)
	}
	return l.wrk.run(ctx, b, addr)
}

func (l *closedLoop) run(ctx context.Context, b *bench, addr string) (s sample, err error) {
	if l.idle {
		conns, err := openIdle(ctx, addr, b.idle)
		if err != nil {
			return s, err
		}
		defer func() {
			// Closed ones would have made it the easier.
			if n := conns.closed(); n > 0 && err == nil {
				err = fmt.Errorf("%d of %d idle connections were closed", n, b.idle)
			}
			conns.close()
		}()
	}
	url := "http://" + addr + l.path
	if _, err := b.saturate(ctx, b.warmUp(), l.connections, url, l.headers...); err != nil {
		return s, err
	}
	return measured(func() (int, error) {
		c, err := b.saturate(ctx, b.duration, l.connections, url, l.headers...)
		s.Rate, s.Errors = c.rate, c.errors
		return c.requests, err
	}, &s)
}

func (l *openRate) run(ctx context.Context, b *bench, name, addr string) (s sample, err error) {
	interval, url := b.intervals[name], "http://"+addr+tiny.Hello
	client := openClient(l.keepAlive)
	defer client.CloseIdleConnections()
	openLoop(ctx, client, url, interval, b.warmUp())
	return measured(func() (int, error) {
		a := openLoop(ctx, client, url, interval, b.duration)
		s.Rate, s.Errors, s.Workers = float64(len(a.latencies))/a.took.Seconds(), a.errors, a.workers
		ms := func(q float64) float64 { return float64(quantile(a.latencies, q)) / float64(time.Millisecond) }
		s.P50, s.P99, s.Max = ms(0.5), ms(0.99), ms(1)
		return len(a.latencies), ctx.Err()
	}, &s)
}

// measured adds to the sample what requests of ask have cost.
func measured(ask func() (requests int, err error), s *sample) (sample, error) {
	before, err := use()
	if err != nil {
		return *s, err
	}
	if s.Requests, err = ask(); err != nil {
		return *s, err
	}
	after, err := use()
	if err != nil {
		return *s, err
	}
	if s.Requests == 0 {
		return *s, fmt.Errorf("no request was answered, with %d errors", s.Errors)
	}
	cpu, others, err := after.since(before)
	s.CPU, s.Others = cpu.Seconds()*1000/float64(s.Requests), others
	return *s, err
}

// calibrations is how often it is found out what net/http can: one moment of a
// busy machine would otherwise set the rate for the whole run.
const calibrations = 3

// calibrate finds the rate of the open loop: half of what net/http answers when
// the same generator sends as fast as it can. The generator needs most of the
// CPUs itself, so half of what wrk gets would be more than it can send.
func (b *bench) calibrate(ctx context.Context, addr string, l load) error {
	url := "http://" + addr + tiny.Hello
	client := openClient(l.open.keepAlive)
	defer client.CloseIdleConnections()
	openLoop(ctx, client, url, 0, b.warmUp())
	var each []time.Duration // of one request
	for range min(calibrations, b.rounds) {
		a := openLoop(ctx, client, url, 0, b.duration)
		if err := ctx.Err(); err != nil {
			return err
		}
		answered := len(a.latencies) - a.errors
		if answered == 0 {
			return fmt.Errorf("no request was answered, with %d errors", a.errors)
		}
		each = append(each, a.took/time.Duration(answered))
	}
	slices.Sort(each)
	b.intervals[l.name] = 2 * each[len(each)/2]
	return nil
}
