//go:build linux

package main

import (
	"math"
)

// A figure is something of a sample that servers are compared by.
type figure struct {
	name  string
	value func(sample) float64
}

var (
	rate = figure{"rate", func(s sample) float64 { return s.Rate }}
	cpu  = figure{"cpu_per_1000", func(s sample) float64 { return s.CPU }}
	p50  = figure{"p50_ms", func(s sample) float64 { return s.P50 }}
	p99  = figure{"p99_ms", func(s sample) float64 { return s.P99 }}
	most = figure{"max_ms", func(s sample) float64 { return s.Max }}
)

// figures are those that a load has.
func (l load) figures() []figure {
	if l.open != nil {
		return []figure{rate, cpu, p50, p99, most} // a rate that is given, or less
	}
	return []figure{rate, cpu}
}

// values are what the peer had under the load, by round. One that is 0 says
// nothing: it is less than its clock can tell.
func values(samples []sample, load, peer string, f figure) map[int]float64 {
	byRound := make(map[int]float64)
	for _, s := range samples {
		if v := f.value(s); s.Load == load && s.Peer == peer && v > 0 {
			byRound[s.Round] = v
		}
	}
	return byRound
}

// absolute summarizes the figure.
func absolute(samples []sample, load, peer string, f figure) summary {
	var all []float64
	for _, v := range values(samples, load, peer, f) {
		all = append(all, v)
	}
	return summarize(all)
}

// ratio summarizes what the peer had, divided by what the other had in the same
// round: what slows the machine for a while slows both.
func ratio(samples []sample, load, peer, versus string, f figure) summary {
	others := values(samples, load, versus, f)
	var all []float64
	for round, v := range values(samples, load, peer, f) {
		if other, ok := others[round]; ok {
			all = append(all, v/other)
		}
	}
	return summarize(all)
}

// unevenness summarizes the coefficient of variation of the requests that the
// workers, n of them, have answered: 0 when all had the same.
func unevenness(samples []sample, load, peer string, n int) summary {
	var all []float64
	for _, s := range samples {
		if s.Load == load && s.Peer == peer && len(s.Workers) > 0 {
			all = append(all, variation(s.Workers, n))
		}
	}
	return summarize(all)
}

func variation(requests map[string]int, n int) float64 {
	n = max(n, len(requests)) // one that has answered none is in no header
	sum, squares := 0.0, 0.0
	for _, r := range requests {
		sum += float64(r)
		squares += float64(r) * float64(r)
	}
	mean := sum / float64(n)
	return math.Sqrt(max(0, squares/float64(n)-mean*mean)) / mean
}
