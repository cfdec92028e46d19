//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
)

func TestMarkdown(t *testing.T) {
	b := &bench{
		settings:  &settings{duration: time.Second, rounds: 2, idle: 7, loads: []load{loads[0], loads[2], loads[5]}, peers: known[:4]},
		workers:   2,
		intervals: map[string]time.Duration{latency: 2 * time.Millisecond},
	}
	o := &outcome{rounds: 2, service: []finding{
		{Peer: "baton", What: "memory", Value: 11.44, Goal: 25, Unit: "MiB"},
		{Peer: "baton-hash", What: "memory", Value: 25.1, Goal: 25, Unit: "MiB"},
		{Peer: "baton", What: "difference", Value: 1},
	}, contenders: []contender{
		{peer: known[0]}, {peer: known[1], version: "v1, v2", differs: "sends Server"}, {peer: known[2], version: "v2"},
		{peer: known[3], unavailable: "get it"},
	}}
	for round := range 2 {
		for i, p := range known[:3] {
			n := float64(i + round + 1)
			o.samples = append(o.samples,
				sample{Round: round, Load: perConn, Peer: p.name, Rate: 1000 * n, CPU: n / 1000, Errors: i * round, Others: 0.25},
				sample{Round: round, Load: latency, Peer: p.name, Rate: 500, P50: n, P99: 2 * n, Max: 3 * n, Workers: map[string]int{"a": 3, "b": 1}})
		}
	}
	have := b.report(o, environment{CPUs: 2, Clients: 5}).markdown("dir")
	for _, want := range []string{`
| | connection per request | idle and busy |
|---|---|---|
| net/http | 1500/s | – |
| Baton | 1.75 (1.50–2.00), errors: 1 | – |
| Baton, ` + "`BATON_DISPATCH=least-connections`" + ` | 2.50 (2.00–3.00), errors: 2 | – |
| Baton, ` + "`BATON_DISPATCH=hash`" + ` | not available: get it | |

`, `
| | connection per request | idle and busy | keep-alive, half load |
`, `
| net/http | 1.5 ms | – | – |
`, `At 500 requests per second, half of what net/http can, keep-alive:

| | requests/s | p50 | p99 | max | p99 ÷ net/http's | unevenness |
|---|---|---|---|---|---|---|
| net/http | 500 | 1.50 ms | 3.00 ms | 4.50 ms | 1 | – |
| Baton | 500 | 2.50 ms | 5.00 ms | 7.50 ms | 1.75 (1.50–2.00) | 50.0 % |
`, `
| requests/s, connection per request | ≥ 0.90 × net/http | Baton: 1.75 (1.50–2.00), met so far, in 2 of 15 rounds<br>Baton, ` + "`BATON_DISPATCH=least-connections`: 2.50",
		"\n| memory | ≤ 25.0 MiB | Baton: 11.4 MiB, met<br>Baton, `BATON_DISPATCH=hash`: 25.1 MiB, missed |\n",
		"\n| difference | ≤ 0 | Baton: 1, missed |\n",
		"`BATON_DISPATCH=hash`: –, not measured |\n",
		"](dir/rate.svg)", "interleaved rounds: 2.", "8 busy connections beside 7 idle ones.", "Clients have 5 addresses.",
		"others had 12 % in the median and 25 % at most", "but for Baton (sends Server).", ", v1, v2.\n",
	} {
		if !strings.Contains(have, want) {
			t.Errorf("want in it\n%s", want)
		}
	}
	for _, part := range []string{"keep-alive | ≥ 0.97", "Node"} {
		if strings.Contains(have, part) {
			t.Error("want no goal of a load or a server that was not to be measured")
		}
	}
	if t.Failed() {
		t.Logf("have\n%s", have)
	}
}
