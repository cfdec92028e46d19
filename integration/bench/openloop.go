//go:build linux

package main

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/baton-go/baton/integration/peers/tiny"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// answers are what the requests of an open loop came to.
type answers struct {
	latencies []time.Duration // sorted
	took      time.Duration
	errors    int
	workers   map[string]int // requests of each
}

const (
	openTimeout = 10 * time.Second
	openMost    = 2048 // requests at a time: more only wait for each other
	openClosed  = 64   // the same, when there is no rate
)

// openLoop sends requests when they are due, however long the answers take. With
// an interval of 0 it sends as fast as it is answered.
func openLoop(ctx context.Context, url string, keepAlive bool, interval, duration time.Duration) answers {
	s, most := &schedule{interval: interval}, uint64(openMost)
	if interval == 0 {
		most = openClosed
	}
	transport := &http.Transport{DialContext: new(dialer).DialContext, DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: openMost}
	defer transport.CloseIdleConnections()
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{Transport: transport, Timeout: openTimeout}), vegeta.MaxWorkers(most),
	)
	targeter := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: url})
	defer context.AfterFunc(ctx, func() { attacker.Stop() })()

	a := answers{workers: make(map[string]int)}
	began := time.Now()
	for r := range attacker.Attack(targeter, s, duration, "") {
		a.latencies = append(a.latencies, s.latency(r))
		if r.Error != "" {
			a.errors++
		}
		if id := r.Headers.Get(tiny.Worker); id != "" {
			a.workers[id]++
		}
	}
	a.took = time.Since(began)
	slices.Sort(a.latencies)
	return a
}

// A schedule is a constant rate, which remembers when each request was due.
type schedule struct {
	interval time.Duration
	began    time.Time // by the first Pace, which is before all results
}

// Pace has a request that is late sent at once.
func (s *schedule) Pace(elapsed time.Duration, hits uint64) (time.Duration, bool) {
	if s.began.IsZero() {
		s.began = time.Now().Add(-elapsed)
	}
	return s.interval*time.Duration(hits) - elapsed, false
}

// Rate is in requests per second.
func (s *schedule) Rate(time.Duration) float64 { return float64(time.Second) / float64(s.interval) }

// latency counts from when the request was due. One that was sent late, because
// the machine was busy with the answers before, would otherwise hide how long
// its user has waited: the coordinated omission.
func (s *schedule) latency(r *vegeta.Result) time.Duration {
	if s.interval == 0 {
		return r.Latency
	}
	due := s.began.Add(s.interval * time.Duration(r.Seq))
	return max(r.Latency, r.End().Sub(due))
}
