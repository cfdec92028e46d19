//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
)

func TestTable(t *testing.T) {
	rows := []row{
		{peer: peer{title: "ours"}, done: 3, report: load.Report{Classes: map[load.Class]*load.Tally{
			load.KeepAlive: {Requests: 100},
			load.Stream:    {Requests: 2},
		}}},
		{peer: peer{title: "theirs"}, done: 4, refused: 2, report: load.Report{Classes: map[load.Class]*load.Tally{
			load.Pipelined: {Requests: 40, Lost: 8, ConnectionClose: 1},
			load.Idle:      {Requests: 10, Lost: 2, ServerClosedIdle: 5, ConnectionClose: 3},
			load.PerConn:   {Requests: 7},
		}}},
		{peer: peer{title: "stuck"}, refused: 9, report: load.Report{}},
		{peer: peer{title: "absent"}, missing: "get it"},
	}
	want := `| server, deployed by | deploys | requests | lost | per deploy | lost by class | found closed while idle | told ` + "`Connection: close`" + ` |
|---|---|---|---|---|---|---|---|
| ours | 3 | 102 | 0 | 0.0 | – | 0 | 0 |
| theirs | 4, 2 refused | 57 | 10 | 2.5 | idle 2, pipelined 8 | 5 | 4 |
| stuck | 0, 9 refused | 0 | 0 | – | – | 0 | 0 |
| absent | left out: get it | | | | | | |
`
	if have := table(rows); have != want {
		t.Errorf("have\n%swant\n%s", have, want)
	}
}

func TestConditionsNameWhatWasMeasured(t *testing.T) {
	b := &bench{settings: &settings{duration: time.Minute, every: time.Second,
		args: []string{"-o", "file", "--readme=README.md", "-duration", "1m", "-h2load", "-pm2", "/path", "-peers", "nginx"}}}
	have := b.conditions([]row{{version: "nginx 1"}, {missing: "get it"}})
	for _, part := range []string{"`go run ./integration/compare -duration 1m -peers nginx`", "64 idle", "every 1s", "Linux ", ", nginx 1."} {
		if !strings.Contains(have, part) {
			t.Errorf("%q is missing in %s", part, have)
		}
	}
}

func TestArguments(t *testing.T) {
	var stderr strings.Builder
	s, err := parse(strings.Fields("-peers pm2,baton-reload -duration 3s"), &stderr)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range s.peers {
		names = append(names, p.name)
	}
	if s.duration != 3*time.Second || !slices.Equal(names, []string{"pm2", "baton-reload"}) {
		t.Errorf("have %v and %v", s.duration, names)
	}
	for args, want := range map[string]string{
		"-peers haproxy":    `no server is called "haproxy"`,
		"-duration 0s more": `-duration: want more than 0`,
		"more":              `unexpected argument "more"`,
		"-what":             "not defined",
	} {
		stderr.Reset()
		code := run(t.Context(), strings.Fields(args), &strings.Builder{}, &stderr)
		if code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: have %d, %s", args, code, &stderr)
		}
	}
}
