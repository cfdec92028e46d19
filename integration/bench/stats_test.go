//go:build linux

package main

import (
	"math"
	"testing"
	"time"
)

func TestRanksAreThoseOfTheTables(t *testing.T) {
	// The 95 % intervals of a median in the textbooks (Conover's table A3).
	for n, want := range map[int]int{
		1: 0, 5: 0, 6: 1, 8: 1, 9: 2, 11: 2, 12: 3, 14: 3, 15: 4, 16: 4, 17: 5, 19: 5, 20: 6, 25: 8, 30: 10, 50: 18, 100: 40,
	} {
		if have := rank(n); have != want {
			t.Errorf("%d samples: have rank %d, want %d", n, have, want)
		}
	}
}

func TestBinomialAddsUp(t *testing.T) {
	if have := binomial(4, 2); math.Abs(have-6.0/16) > 1e-12 {
		t.Errorf("have %v, want 6/16", have)
	}
	sum := 0.0
	for k := range 16 {
		sum += binomial(15, k)
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("have %v in all", sum)
	}
}

func TestSummarize(t *testing.T) {
	fifteen := []float64{15, 1, 14, 2, 13, 3, 12, 4, 11, 5, 10, 6, 9, 7, 8}
	for _, c := range []struct {
		name    string
		samples []float64
		want    summary
	}{
		{"none", nil, summary{}},
		{"one", []float64{3}, summary{3, 3, 3, 1}},
		{"an even number", []float64{4, 1, 3, 2}, summary{2.5, 1, 4, 4}},
		{"the fewest with an interval", []float64{6, 5, 4, 3, 2, 1}, summary{3.5, 1, 6, 6}},
		{"nine", []float64{1, 2, 3, 4, 5, 6, 7, 8, 9}, summary{5, 2, 8, 9}},
		{"fifteen", fifteen, summary{8, 4, 12, 15}},
		{"a wild one", append([]float64{1e9}, fifteen[1:]...), summary{8, 4, 12, 15}},
	} {
		if have := summarize(c.samples); have != c.want {
			t.Errorf("%s: have %v, want %v", c.name, have, c.want)
		}
	}
	if fifteen[0] != 15 {
		t.Error("the samples have been sorted in place")
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if have := quantile(hundred, q); have != want {
			t.Errorf("%v: have %d, want %d", q, have, want)
		}
	}
	if have := quantile(nil, 0.5); have != 0 {
		t.Errorf("of none: have %d", have)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	samples := []sample{
		{Round: 1, Load: "l", Peer: plain, Rate: 100},
		{Round: 1, Load: "l", Peer: "p", Rate: 90},
		{Round: 2, Load: "l", Peer: plain, Rate: 10}, // the machine was busy
		{Round: 2, Load: "l", Peer: "p", Rate: 9},
		{Round: 3, Load: "l", Peer: "p", Rate: 500}, // that of net/http failed
		{Round: 4, Load: "l", Peer: plain, Rate: 500},
		{Round: 1, Load: "other", Peer: "p", Rate: 1},
	}
	if have, want := ratio(samples, "l", "p", plain, rate), (summary{0.9, 0.9, 0.9, 2}); have != want {
		t.Errorf("have %v, want %v", have, want)
	}
	if have, want := absolute(samples, "l", "p", rate), (summary{90, 9, 500, 3}); have != want {
		t.Errorf("have %v, want %v", have, want)
	}
	if have := ratio(samples, "l", "p", plain, p99); have.N != 0 {
		t.Errorf("have %v of what was not measured", have)
	}
}

func TestVariationCountsWorkersWithoutARequest(t *testing.T) {
	for _, c := range []struct {
		requests map[string]int
		n        int
		want     float64
	}{
		{map[string]int{"1": 50, "2": 50}, 2, 0},
		{map[string]int{"1": 100}, 2, 1},
		{map[string]int{"1": 100}, 5, 2},
		{map[string]int{"1": 2, "2": 4, "3": 4, "4": 4, "5": 5, "6": 5, "7": 7, "8": 9}, 8, 0.4},
		{map[string]int{"1": 50, "2": 50, "3": 50}, 2, 0}, // one was respawned
	} {
		if have := variation(c.requests, c.n); math.Abs(have-c.want) > 1e-9 {
			t.Errorf("%v of %d: have %v, want %v", c.requests, c.n, have, c.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	atLeast, atMost := goal{want: 0.97}, goal{want: 1.15, atMost: true}
	for _, c := range []struct {
		name string
		goal goal
		s    summary
		want string
	}{
		{"reached", atLeast, summary{0.98, 0.97, 0.99, 15}, met},
		{"only the interval reaches it", atLeast, summary{0.96, 0.95, 0.971, 15}, met},
		{"too far below, though the interval reaches it", atLeast, summary{0.95, 0.8, 1.2, 15}, missed},
		{"near, but surely below", atLeast, summary{0.96, 0.955, 0.965, 40}, missed},
		{"low enough", atMost, summary{1.1, 1.0, 1.3, 15}, met},
		{"only the interval is low enough", atMost, summary{1.17, 1.14, 1.2, 15}, met},
		{"too high, though the interval is low enough", atMost, summary{1.2, 1.0, 1.4, 15}, missed},
		{"near, but surely above", atMost, summary{1.16, 1.155, 1.17, 15}, missed},
		{"too few rounds", atLeast, summary{0.98, 0.97, 0.99, 14}, "met so far, in 14 of 15 rounds"},
		{"too few rounds to have missed it", atMost, summary{2, 2, 2, 1}, "missed so far, in 1 of 15 rounds"},
		{"nothing", atLeast, summary{}, notMeasured},
		{"nothing", atMost, summary{}, notMeasured},
	} {
		if have := c.goal.verdict(c.s); have != c.want {
			t.Errorf("%s: have %q, want %q", c.name, have, c.want)
		}
	}
}
