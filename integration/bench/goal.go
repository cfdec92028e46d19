//go:build linux

package main

import "fmt"

// A goal is what the ratio of a figure to another server's should come to.
type goal struct {
	what   string
	load   string
	of     figure
	versus string // the server that it is compared with
	want   float64
	atMost bool     // or at least
	peers  []string // who should reach it
}

var goals = []goal{
	{what: "requests/s, keep-alive", load: keepAlive, of: rate, versus: plain, want: 0.97, peers: ours},
	{what: "p99 at half load, keep-alive", load: latency, of: p99, versus: plain, want: 1.15, atMost: true, peers: ours},
	{what: "p99 at half load, connection per request", load: connLatency, of: p99, versus: plain, want: 1.15, atMost: true, peers: ours},
	{what: "requests/s, connection per request", load: perConn, of: rate, versus: plain, want: 0.90, peers: masterAccepts},
	{what: "requests/s, connection per request", load: perConn, of: rate, versus: nodeRR, want: 2, peers: masterAccepts},
	{what: "requests/s, connection per request", load: perConn, of: rate, versus: plain, want: 1, peers: othersAccept},
	{what: "CPU time per connection", load: perConn, of: cpu, versus: plain, want: 1.2, atMost: true, peers: masterAccepts},
	{what: "CPU time per connection", load: perConn, of: cpu, versus: plain, want: 1, atMost: true, peers: kernelAccepts},
	{what: "requests/s, 1 MiB from memory", load: mib, of: rate, versus: plain, want: 0.97, peers: ours},
	{what: "requests/s, a file of 1 MiB", load: file, of: rate, versus: plain, want: 0.97, peers: ours},
}

const (
	enough = 15   // rounds for a verdict
	slack  = 0.02 // by which a median may miss a goal that its interval reaches
)

// The verdicts.
const (
	met         = "met"
	missed      = "missed"
	notMeasured = "not measured"
)

// verdict: the interval of enough rounds must reach the goal, and the median be
// near it, since a wide interval reaches anything.
func (g goal) verdict(s summary) string {
	v := missed
	switch {
	case s.N == 0:
		return notMeasured
	case g.atMost && s.Low <= g.want && s.Median <= g.want*(1+slack),
		!g.atMost && s.High >= g.want && s.Median >= g.want*(1-slack):
		v = met
	}
	if s.N < enough {
		return fmt.Sprintf("%s so far, in %d of %d rounds", v, s.N, enough)
	}
	return v
}

// text is the goal itself; titles are those of the peers, by name.
func (g goal) text(titles map[string]string) string {
	sign := "≥"
	if g.atMost {
		sign = "≤"
	}
	return fmt.Sprintf("%s %.2f × %s", sign, g.want, titles[g.versus])
}
