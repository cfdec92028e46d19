//go:build linux

package main

import (
	"fmt"
	"strings"
)

// marker names the part of a file that the report replaces.
const marker = "bench"

// markdown is the report, with the charts that lie in the directory, unless it
// is "".
func (r *report) markdown(charts string) string {
	var b strings.Builder
	chart := func(name, title string) {
		if charts != "" && r.has(name) {
			fmt.Fprintf(&b, "![%s](%s/%s.svg)\n\n", strings.TrimSuffix(title, ":"), charts, name)
		}
	}
	var closed, open []reportedLoad
	for _, l := range r.Loads {
		if l.Rate > 0 {
			open = append(open, l)
		} else {
			closed = append(closed, l)
		}
	}
	section := func(title, table, name string) {
		fmt.Fprintf(&b, "%s\n\n%s\n", title, table)
		chart(name, title)
	}
	folded := func(title string, inside func()) {
		fmt.Fprintf(&b, "<details>\n<summary>%s</summary>\n\n", title)
		inside()
		b.WriteString("</details>\n\n")
	}
	if len(closed) > 0 {
		section("Requests per second at saturation, divided by those of net/http:", r.ratios(closed, rate, "%.0f/s", 1), rateChart)
	}
	if len(r.Goals) > 0 || len(r.Service) > 0 {
		section("The goals:", r.goalTable(), "")
	}
	folded("CPU time", func() {
		section("Of all the server's processes for 1,000 requests, divided by that of net/http:", r.ratios(r.Loads, cpu, "%.1f ms", 1000), cpuChart)
	})
	if len(open) > 0 {
		folded("Latencies at half load", func() {
			for i, l := range open {
				name := ""
				if i == len(open)-1 {
					name = latencyChart
				}
				section(fmt.Sprintf("At %.0f requests per second, half of what net/http can, %s:", l.Rate, l.Title), r.latencies(l), name)
			}
		})
	}
	b.WriteString(r.conditions())
	return b.String()
}

// ratios has a line for each peer and a column for each load. That of net/http
// has its figures themselves, times scale.
func (r *report) ratios(loads []reportedLoad, f figure, format string, scale float64) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, l := range loads {
		title := l.Title
		if l.Rate > 0 {
			title += ", half load"
		}
		fmt.Fprintf(&b, " %s |", title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(loads)) + "\n")
	for _, p := range r.Peers {
		fmt.Fprintf(&b, "| %s |", p.Title)
		for i, l := range loads {
			found := r.find(l.Name, p.Name, f.name)
			switch {
			case p.Unavailable != "" && i == 0:
				fmt.Fprintf(&b, " not available: %s |", p.Unavailable)
			case p.Unavailable != "":
				b.WriteString(" |")
			case p.Name == plain && found.Absolute.N > 0:
				fmt.Fprintf(&b, " "+format+" |", scale*found.Absolute.Median)
			default:
				fmt.Fprintf(&b, " %s%s |", found.Ratio, r.failed(l.Name, p.Name))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r *report) failed(load, peer string) string {
	if n := r.errors(load, peer); n > 0 {
		return fmt.Sprintf(", errors: %d", n)
	}
	return ""
}

// latencies has a line for each peer.
func (r *report) latencies(l reportedLoad) string {
	var b strings.Builder
	b.WriteString("| | requests/s | p50 | p99 | max | p99 ÷ net/http's | unevenness |\n|---|---|---|---|---|---|---|\n")
	for _, p := range r.Peers {
		if p.Unavailable != "" {
			continue // the first table has said why
		}
		ms := func(f figure) string {
			s := r.find(l.Name, p.Name, f.name).Absolute
			if s.N == 0 {
				return "–"
			}
			return fmt.Sprintf("%.2f ms", s.Median)
		}
		uneven := "–"
		if s := r.find(l.Name, p.Name, unevennessName).Absolute; s.N > 0 {
			uneven = fmt.Sprintf("%.1f %%", 100*s.Median)
		}
		versus := "1"
		if p.Name != plain {
			versus = r.find(l.Name, p.Name, p99.name).Ratio.String()
		}
		fmt.Fprintf(&b, "| %s | %.0f | %s | %s | %s | %s%s | %s |\n", p.Title,
			r.find(l.Name, p.Name, rate.name).Absolute.Median, ms(p50), ms(p99), ms(most), versus, r.failed(l.Name, p.Name), uneven)
	}
	return b.String()
}

func (r *report) goalTable() string {
	titles := make(map[string]string)
	for _, p := range r.Peers {
		titles[p.Name] = p.Title
	}
	// A line for each goal, with all who have it.
	var lines []string
	found := make(map[string][]string)
	for _, g := range r.Goals {
		line := fmt.Sprintf("| %s | %s |", g.What, g.Goal)
		if found[line] == nil {
			lines = append(lines, line)
		}
		found[line] = append(found[line], fmt.Sprintf("%s: %s, %s", titles[g.Peer], g.Ratio, g.Verdict))
	}
	for _, f := range r.Service {
		line := fmt.Sprintf("| %s | ≤ %s |", f.What, f.amount(f.Goal))
		if found[line] == nil {
			lines = append(lines, line)
		}
		found[line] = append(found[line], fmt.Sprintf("%s: %s, %s", titles[f.Peer], f.amount(f.Value), f.verdict()))
	}
	var b strings.Builder
	b.WriteString("| | goal | found |\n|---|---|---|\n")
	for _, line := range lines {
		fmt.Fprintf(&b, "%s %s |\n", line, strings.Join(found[line], "<br>"))
	}
	return b.String()
}

func (s summary) String() string {
	switch s.N {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf("%.2f", s.Median)
	default:
		return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Low, s.High)
	}
}

// conditions say how this was found.
func (r *report) conditions() string {
	var what, versions, differ []string
	for _, l := range r.Loads {
		if l.Rate == 0 {
			what = append(what, l.What)
		}
	}
	for _, p := range r.Peers {
		if p.Version != "" {
			versions = append(versions, strings.Split(p.Version, ", ")...)
		}
		if p.Differs != "" {
			differ = append(differ, fmt.Sprintf("%s (%s)", p.Title, p.Differs))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`: %v of each load for each server, started anew; interleaved rounds: %d. %s\n", r.Command, r.Duration, r.Rounds, r.Method)
	if len(what) > 0 {
		fmt.Fprintf(&b, "wrk saturates: %s.\n", strings.Join(what, "; "))
	}
	b.WriteString("Latencies count from when a request was due, which corrects for coordinated omission. ")
	b.WriteString("Unevenness is the coefficient of variation of the requests that each worker had. ")
	fmt.Fprintf(&b, "Clients have %d addresses. Servers and load generators share the same %d CPUs", r.Environment.Clients, r.Environment.CPUs)
	if s := r.others(); s.N > 0 {
		fmt.Fprintf(&b, ", of which others had %.0f %% in the median and %.0f %% at most", 100*s.Median, 100*r.worst())
	}
	b.WriteString(".\n")
	if len(differ) > 0 {
		fmt.Fprintf(&b, "All answer with the same headers and sizes, but for %s.\n", strings.Join(differ, ", "))
	}
	if len(r.Failures) > 0 {
		fmt.Fprintf(&b, "%d samples failed.\n", len(r.Failures))
	}
	fmt.Fprintf(&b, "A goal is met when the interval of at least %d rounds reaches it and the median misses it by no more than %.0f %%.\n", enough, slack*100)
	fmt.Fprintf(&b, "%s.\n", strings.Join(append([]string{r.Environment.String()}, once(versions)...), ", "))
	return b.String()
}

// once leaves out what has been before.
func once(list []string) []string {
	var kept []string
	seen := make(map[string]bool)
	for _, s := range list {
		if !seen[s] {
			kept = append(kept, s)
		}
		seen[s] = true
	}
	return kept
}

// worst is the greatest share of the CPUs that somebody else has had.
func (r *report) worst() float64 {
	w := 0.0
	for _, s := range r.Samples {
		w = max(w, s.Others)
	}
	return w
}
