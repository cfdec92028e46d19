//go:build linux

package main

import (
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	const fine = `Running 2s test @ http://127.0.0.1:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   635.91us    0.89ms  12.92ms   93.69%
    Req/Sec    56.20k     8.07k   62.00k    86.54%
  224646 requests in 2.10s, 17.76GB read
Requests/sec: 106974.29
Transfer/sec:    606.33MB
`
	const bad = `Running 2m test @ http://127.0.0.1:8080/
  2 threads and 2 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.00us    0.00us   0.00us    -nan%
    Req/Sec     0.00      0.00     0.00      -nan%
  3 requests in 1.50m, 0.00B read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 3
Requests/sec:      0.03
Transfer/sec:       0.00B
`
	for text, want := range map[string]count{
		fine: {224646, 2100 * time.Millisecond, 106974.29, 0},
		bad:  {3, 90 * time.Second, 0.03, 4324},
	} {
		if have, err := parseWrk(text); err != nil || have != want {
			t.Errorf("have %v, %v, want %v", have, err, want)
		}
	}
	for _, text := range []string{"", "unable to connect to 127.0.0.1:1 Connection refused\n", "  1 requests in 1.00s, 1B read\n"} {
		if have, err := parseWrk(text); err == nil {
			t.Errorf("%q: have %v, want an error", text, have)
		}
	}
}
