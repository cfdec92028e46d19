// Package load drives a server with HTTP/1.1 clients that never retry, and
// counts exactly what was lost.
//
// Ordinary clients hide what a reload loses: net/http's Transport sends a GET
// again when an idle connection turns out to be closed. The clients here write
// their requests by hand on sockets of their own, send each request once, and
// count every request that was not answered in full with what it asked for.
package load

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Class is one way of using connections.
type Class string

const (
	// PerConn sends GET / on a connection of its own, with Connection: close.
	PerConn Class = "per-conn"

	// KeepAlive sends POST /echo with a random body of 1 to 16 KiB on a kept
	// connection, and compares the answer byte by byte.
	KeepAlive Class = "keep-alive"

	// Idle is KeepAlive with a think time of 1.5 s: its connections are nearly
	// always between two requests.
	Idle Class = "idle"

	// Slow sends GET /slow?d=2s on a connection of its own.
	Slow Class = "slow"

	// Stream sends GET /stream?d=5s&every=100ms on a connection of its own,
	// and checks the sequence of the lines up to the last one.
	Stream Class = "stream"

	// Pipelined writes four GET /n?i=K at once on a kept connection and
	// expects the four answers in order.
	Pipelined Class = "pipelined"
)

// Classes lists all classes, in the order of the report.
func Classes() []Class {
	return []Class{PerConn, KeepAlive, Idle, Slow, Stream, Pipelined}
}

// A Plan is a number of like clients.
type Plan struct {
	Class   Class
	Clients int

	// Think is the pause of a client between two requests. 0 means 1.5 s for
	// Idle and a random 2 to 10 ms for the others. The first pause of every
	// client is a random part of it, so that clients do not march in step.
	Think time.Duration
}

// Config says what to drive and how. The duration is that of Run's context.
type Config struct {
	// Network and Addr are those of net.Dial: "tcp" or "unix". Give a literal
	// IP address: a name with several addresses lets the dialler hide a
	// refusal by going on to the next.
	Network, Addr string

	Plans []Plan

	// RequestTimeout bounds one request, the connect included. Slow and Stream
	// get it on top of the time their request takes by nature. 0 means 10 s.
	RequestTimeout time.Duration

	// SlowFor, StreamFor and StreamEvery are the durations that Slow and
	// Stream ask for. 0 means 2 s, 5 s and 100 ms.
	SlowFor, StreamFor, StreamEvery time.Duration
}

// Run starts all clients and stops them when ctx is done: each finishes its
// request in flight, bounded by the request timeout, and closes its connection.
// Run returns when the last one has. It panics on a plan of no known class.
func Run(ctx context.Context, c Config) Report {
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 10*time.Second)
	c.SlowFor = cmp.Or(c.SlowFor, 2*time.Second)
	c.StreamFor = cmp.Or(c.StreamFor, 5*time.Second)
	c.StreamEvery = cmp.Or(c.StreamEvery, 100*time.Millisecond)

	// Each client fills a tally of its own, so that none waits for another.
	var clients []*client
	report := Report{Started: time.Now(), Classes: make(map[Class]*Tally)}
	for _, p := range c.Plans {
		if !slices.Contains(Classes(), p.Class) {
			panic(fmt.Sprintf("load: plan of unknown class %q", p.Class))
		}
		if report.Classes[p.Class] == nil {
			report.Classes[p.Class] = newTally()
		}
		for range p.Clients {
			clients = append(clients, newClient(&c, p))
		}
	}

	var wg sync.WaitGroup
	for _, cl := range clients {
		wg.Go(func() { cl.run(ctx) })
	}
	wg.Wait()

	for _, cl := range clients {
		report.Classes[cl.class].add(cl.tally)
	}
	report.Took = time.Since(report.Started)
	return report
}
