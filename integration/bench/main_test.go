//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestArguments(t *testing.T) {
	var stderr strings.Builder
	for args, want := range map[string]struct {
		duration     time.Duration
		rounds       int
		peers, loads string
	}{
		"":                                {5 * time.Second, 15, names(known), names(loads)},
		"-short":                          {200 * time.Millisecond, 1, "plain,baton", names(loads)},
		"-rounds 2 -short -peers nginx":   {200 * time.Millisecond, 2, "plain,nginx", names(loads)},
		"-peers pm2,baton,plain":          {5 * time.Second, 15, "plain,baton,pm2", names(loads)},
		"-loads latency,mib -duration 3s": {3 * time.Second, 15, names(known), "mib,latency"},
	} {
		s, err := parse(strings.Fields(args), &stderr)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if s.duration != want.duration || s.rounds != want.rounds || names(s.peers) != want.peers || names(s.loads) != want.loads {
			t.Errorf("%s: have %v, %d, %s, %s", args, s.duration, s.rounds, names(s.peers), names(s.loads))
		}
	}
	for args, want := range map[string]string{
		"-peers apache":             `-peers: there is no "apache"; there are plain,baton,`,
		"-peers ,":                  `-peers: there is no ""`,
		"-loads fast":               `-loads: there is no "fast"; there are per-conn,`,
		"-duration 0s more":         `-duration, -watch: want 200ms or more, have 0s and 12s`,
		"-rounds 0":                 "-rounds, -idle, -open, -reloads: want 1 or more, have 0, 1000,",
		"more":                      `unexpected argument "more"`,
		"-what":                     "not defined",
		"-duration soon":            "invalid value",
		"-duration 1ms -peers nope": `there is no "nope"`,
	} {
		stderr.Reset()
		code := run(t.Context(), strings.Fields(args), &strings.Builder{}, &stderr)
		if code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: have %d, %s", args, code, &stderr)
		}
	}
	stderr.Reset()
	code := run(t.Context(), []string{"-wrk", "/no/such/wrk"}, &strings.Builder{}, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "wrk is not installed") {
		t.Errorf("without wrk: have %d, %s", code, &stderr)
	}
}

func TestShownArgumentsAreThoseThatMatter(t *testing.T) {
	b := &bench{settings: &settings{args: []string{
		"-out", "dir", "--readme=README.md", "-rounds", "3", "-pm2", "/path", "-short", "-peers=nginx"}}}
	if have, want := b.shown(), []string{"-rounds", "3", "-short", "-peers=nginx"}; !slices.Equal(have, want) {
		t.Errorf("have %q, want %q", have, want)
	}
}

func TestChartsAreLinkedWhereTheyLieBelow(t *testing.T) {
	for _, c := range []struct{ file, out, want string }{
		{"README.md", "docs/bench", "docs/bench"},
		{"/a/README.md", "/a/b/c", "b/c"},
		{"/a/README.md", "/a", "."},
		{"/a/b/README.md", "/a/c", ""},
		{"README.md", "/tmp/x", ""},
		{"README.md", "", ""},
	} {
		if have := chartsFrom(c.file, c.out); have != c.want {
			t.Errorf("%s, %s: have %q, want %q", c.file, c.out, have, c.want)
		}
	}
}

func TestPeersOfBatonSetWhatTheirTitleSays(t *testing.T) {
	for _, p := range known {
		if !slices.Contains(ours, p.name) || p.name == "baton" {
			if p.env != nil {
				t.Errorf("%s: have %q", p.name, p.env)
			}
			continue
		}
		value := strings.TrimPrefix(p.name, "baton-")
		if len(p.env) != 1 || !strings.HasSuffix(strings.TrimSuffix(p.env[0], "!"), "="+value) || !strings.HasPrefix(p.env[0], "BATON_") {
			t.Errorf("%s: have %q", p.name, p.env)
		}
	}
}

func TestExaminationSaysWhatDiffers(t *testing.T) {
	want := examination{"/": {headers: []string{"Content-Length", "Date"}, head: 100, body: 3}}
	have := examination{"/": {headers: []string{"Date", "Server"}, head: 120, body: 3}}
	if got := have.differs(want); got != "sends Server, lacks Content-Length, +20 bytes" {
		t.Errorf("have %q", got)
	}
	if got := want.differs(want); got != "" {
		t.Errorf("have %q", got)
	}
	if err := have.check(want); err != nil {
		t.Error(err)
	}
	if err := (examination{"/": {body: 4}}).check(want); err == nil {
		t.Error("want an error for another body")
	}
}
