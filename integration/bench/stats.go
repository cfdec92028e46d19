//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// A summary says where the median of what was sampled lies.
type summary struct {
	Median float64 `json:"median"`
	// Low and High enclose the median of whatever could be sampled so, in at
	// least 95 of 100 cases. With fewer than 6 samples nothing does that, and
	// they are the least and the greatest.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	N    int     `json:"n"`
}

// fewest is how many samples it takes to have an interval.
const fewest = 6

// summarize has the interval from the order of the samples alone: each is above
// the true median with probability 1/2, so how many are is binomial. It assumes
// no distribution, and one wild sample moves it by one place at most.
func summarize(samples []float64) summary {
	n := len(samples)
	if n == 0 {
		return summary{}
	}
	x := slices.Sorted(slices.Values(samples))
	s := summary{Median: (x[(n-1)/2] + x[n/2]) / 2, N: n}
	cut := max(0, rank(n)-1)
	s.Low, s.High = x[cut], x[n-1-cut]
	return s
}

// rank is the greatest k so that the interval from the k-th least to the k-th
// greatest of n samples holds the median with at least 95 %, or 0.
func rank(n int) int {
	k, below := 0, 0.0 // P(fewer than k+1 samples lie below the median)
	for k < n {
		if below += binomial(n, k); below > 0.025 {
			break
		}
		k++
	}
	return k
}

// binomial is the probability of k heads in n throws of a coin.
func binomial(n, k int) float64 {
	lgamma := func(x int) float64 {
		l, _ := math.Lgamma(float64(x))
		return l
	}
	return math.Exp(lgamma(n+1) - lgamma(k+1) - lgamma(n-k+1) - float64(n)*math.Ln2)
}

// quantile is the nearest rank in sorted times, 0 without any.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
