package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/baton-go/baton/internal/control"
)

// shortRevision is how much of a revision is shown.
const shortRevision = 12

// render draws a status: a head line, the generations, the workers, and the last
// deploy if it was refused; and what may be wrong with it.
func render(w io.Writer, st control.Status, now time.Time) {
	state := st.State
	if !st.Accepting {
		state += " (not accepting)"
	}
	fmt.Fprintf(w, "%s  master %d  %s  revision %s  up %s\n", state, st.Master.PID,
		st.Master.Binary.Path, revision(st.Master.Binary), span(now.Sub(st.Master.Started)))

	for _, l := range st.Listeners {
		if l.Accept != "" && l.Accept != "master" {
			fmt.Fprintf(w, "accept by %s  %s  %s\n", l.Accept, l.Name, l.Address)
		}
	}

	gens := plain(w, "generation", "age", "workers", "accepted", "acknowledged", "pending", "redispatched", "refused", "cut")
	gens.AppendHeader(table.Row{"generation", "state", "age", "workers", "dispatch", "revision", "accepted",
		"acknowledged", "pending", "redispatched", "refused", "cut"})
	procs := plain(w, "pid", "weight", "open", "dispatched", "accepted", "unacked", "restarts")
	procs.AppendHeader(table.Row{"worker", "pid", "state", "weight", "open", "dispatched", "accepted", "unacked", "restarts", "last exit"})
	workers := 0
	for _, g := range st.Generations {
		l := g.Ledger
		gens.AppendRow(table.Row{g.Number, g.State, span(time.Duration(g.Age * float64(time.Second))), g.Workers,
			orDash(g.Dispatch), revision(g.Binary), l.Accepted, l.Acknowledged, l.Pending, l.Redispatched, l.RefusedTotal(), l.Cut})
		for _, p := range g.Processes {
			procs.AppendRow(table.Row{p.ID, dash(p.PID), p.State, weight(p.Weight), p.Open, p.Dispatched, p.Accepted, p.Unacked, p.Restarts, p.LastExit})
			workers++
		}
	}
	if len(st.Generations) > 0 {
		fmt.Fprintln(w)
		gens.Render()
	}
	if workers > 0 {
		fmt.Fprintln(w)
		procs.Render()
	}
	if line := drained(st.Drained); line != "" {
		fmt.Fprintf(w, "\ndrained: %s\n", line)
	}
	if d := st.LastDeploy; d != nil && !d.OK {
		fmt.Fprintf(w, "\nlast deploy: %s\n", refused(d.Action, *d))
	} else if d != nil && d.Action == control.ActionRollback {
		fmt.Fprintf(w, "\nlast deploy: %s\n", done(d.Action, *d))
	}
	if st.Schema > control.Schema {
		fmt.Fprintf(w, "\nthis status has schema %d and batonctl knows %d: some of it may be wrong, --json has it all\n", st.Schema, control.Schema)
	}
}

// drained tells what became of connections by now, "" if none ever drained.
func drained(d control.Drained) string {
	var parts []string
	for _, of := range []struct {
		name   string
		counts map[string]int
	}{{"moved", d.Moved}, {"soft-drained", d.SoftDrained}, {"finished", d.Finished}, {"cut", d.Cut}} {
		total := 0
		var reasons []string
		for _, reason := range slices.Sorted(maps.Keys(of.counts)) {
			if n := of.counts[reason]; n > 0 {
				total += n
				reasons = append(reasons, fmt.Sprintf("%s %d", reason, n))
			}
		}
		if total > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", total, of.name, strings.Join(reasons, ", ")))
		}
	}
	return strings.Join(parts, ", ")
}

// plain is a table of columns and nothing else: it is read by people in a
// terminal and by awk. The columns named hold numbers and go to the right.
func plain(w io.Writer, numbers ...string) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  "},
		Format:  table.FormatOptions{Header: text.FormatUpper},
		Options: table.OptionsNoBordersAndSeparators,
	})
	t.SuppressTrailingSpaces()
	cols := make([]table.ColumnConfig, len(numbers))
	for i, n := range numbers {
		cols[i] = table.ColumnConfig{Name: n, Align: text.AlignRight, AlignHeader: text.AlignRight}
	}
	t.SetColumnConfigs(cols)
	return t
}

// revision names what a binary was built from, as far as it says so.
func revision(b control.Binary) string {
	r := b.Revision
	switch {
	case r == "" && b.Version == "":
		return "-"
	case r == "":
		r = b.Version
	case len(r) > shortRevision:
		r = r[:shortRevision]
	}
	if b.Modified {
		r += "+"
	}
	return r
}

// span is a duration at the precision that a reader cares for.
func span(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}

// weight is one that counts.
func weight(w *int) any {
	if w == nil {
		return "-"
	}
	return *w
}

// orDash shows that nothing is known.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// dash stands for a process that is not there.
func dash(pid int) any {
	if pid == 0 {
		return "-"
	}
	return pid
}
