//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A report is what the run has found.
type report struct {
	Command     string         `json:"command"`
	Environment environment    `json:"environment"`
	Duration    time.Duration  `json:"duration_ns"` // of each sample
	Rounds      int            `json:"rounds"`
	Method      string         `json:"method"`
	Peers       []reportedPeer `json:"peers"`
	Loads       []reportedLoad `json:"loads"`
	Figures     []reported     `json:"figures"`
	Goals       []reportedGoal `json:"goals"`
	Service     []finding      `json:"service,omitempty"`
	Failures    []string       `json:"failures,omitempty"`
	Samples     []sample       `json:"samples"`
}

type reportedPeer struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	Version     string `json:"version,omitempty"`
	Unavailable string `json:"unavailable,omitempty"` // why nothing was measured
	Differs     string `json:"differs,omitempty"`     // its answers from those of net/http
}

type reportedLoad struct {
	Name  string  `json:"name"`
	Title string  `json:"title"`
	What  string  `json:"what"`
	Rate  float64 `json:"rate,omitempty"` // of an open loop, requests per second
}

// reported is a figure of a peer under a load.
type reported struct {
	Load     string  `json:"load"`
	Peer     string  `json:"peer"`
	Figure   string  `json:"figure"`
	Absolute summary `json:"absolute"`
	Ratio    summary `json:"ratio"` // to net/http, in the same round
}

type reportedGoal struct {
	What    string  `json:"what"`
	Goal    string  `json:"goal"`
	Peer    string  `json:"peer"`
	Ratio   summary `json:"ratio"`
	Verdict string  `json:"verdict"`
}

var method = fmt.Sprintf("Ratios are to net/http in the same round; given are their median and, in brackets, "+
	"its distribution-free 95 %% interval from order statistics (binomial), or with fewer than %d rounds the least and the greatest.", fewest)

// unevennessName is a figure that has no ratio.
const unevennessName = "unevenness"

func (b *bench) report(o *outcome, e environment) *report {
	r := &report{
		Command: strings.Join(append([]string{"go run ./integration/bench"}, b.shown()...), " "), Environment: e,
		Duration: b.duration, Rounds: o.rounds, Method: method, Failures: o.failures, Samples: o.samples, Service: o.service,
	}
	for _, l := range b.loads {
		rl := reportedLoad{Name: l.name, Title: l.title, What: l.what}
		if l.open != nil {
			rl.Rate = b.rate(l)
			rl.What = fmt.Sprintf("%.0f requests/s, half of what net/http can with this generator", rl.Rate)
		} else if l.wrk.idle {
			rl.What = fmt.Sprintf(l.what, b.idle)
		}
		r.Loads = append(r.Loads, rl)
	}
	for _, c := range o.contenders {
		r.Peers = append(r.Peers, reportedPeer{c.name, c.title, c.version, c.unavailable, c.differs})
		if c.unavailable != "" {
			continue
		}
		for _, l := range b.loads {
			for _, f := range l.figures() {
				r.Figures = append(r.Figures, reported{l.name, c.name, f.name,
					absolute(o.samples, l.name, c.name, f), ratio(o.samples, l.name, c.name, plain, f)})
			}
			if l.open != nil && c.workers {
				r.Figures = append(r.Figures, reported{Load: l.name, Peer: c.name, Figure: unevennessName,
					Absolute: unevenness(o.samples, l.name, c.name, b.workers)})
			}
		}
	}
	titles := make(map[string]string)
	for _, p := range known {
		titles[p.name] = p.title
	}
	chosen := func(name string) bool {
		return slices.ContainsFunc(b.peers, func(p peer) bool { return p.name == name })
	}
	for _, g := range goals {
		if !chosen(g.versus) || !slices.ContainsFunc(b.loads, func(l load) bool { return l.name == g.load }) {
			continue
		}
		for _, name := range slices.DeleteFunc(slices.Clone(g.peers), func(name string) bool { return !chosen(name) }) {
			s := ratio(o.samples, g.load, name, g.versus, g.of)
			r.Goals = append(r.Goals, reportedGoal{g.what, g.text(titles), name, s, g.verdict(s)})
		}
	}
	return r
}

// find returns the figure; nothing was measured if it is zero.
func (r *report) find(load, peer, figure string) reported {
	for _, f := range r.Figures {
		if f.Load == load && f.Peer == peer && f.Figure == figure {
			return f
		}
	}
	return reported{}
}

// errors counts those that a peer has had under a load.
func (r *report) errors(load, peer string) int {
	n := 0
	for _, s := range r.Samples {
		if s.Load == load && s.Peer == peer {
			n += s.Errors
		}
	}
	return n
}

// others summarizes what share of the CPUs somebody else has had.
func (r *report) others() summary {
	var all []float64
	for _, s := range r.Samples {
		all = append(all, s.Others)
	}
	return summarize(all)
}

// shown are the arguments that matter to the result.
func (b *bench) shown() []string {
	var args []string
	for i := 0; i < len(b.args); i++ {
		name, _, whole := strings.Cut(strings.TrimLeft(b.args[i], "-"), "=")
		switch name {
		case "out", "readme", "wrk", "nginx", "haproxy", "pm2":
			if !whole {
				i++
			}
		default:
			args = append(args, b.args[i])
		}
	}
	return args
}

// write writes report.md, report.json and the charts to the directory.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// A sample a line: what changes from run to run can be compared.
	lines := strings.ReplaceAll(string(text), `{"round":`, "\n"+`{"round":`) + "\n"
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "report.json"), []byte(lines), 0o666),
		os.WriteFile(filepath.Join(dir, "report.md"), []byte(r.markdown(".")), 0o666),
		r.draw(dir),
	)
}
