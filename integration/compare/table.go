//go:build linux

package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/peers"
)

// table has a line for each peer.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| server, deployed by | deploys | requests | lost | per deploy | lost by class | found closed while idle | told `Connection: close` |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		if r.missing != "" {
			fmt.Fprintf(&b, "| %s | left out: %s | | | | | | |\n", r.peer.title, r.missing)
			continue
		}
		deploys := fmt.Sprint(r.done)
		if r.refused > 0 {
			deploys += fmt.Sprintf(", %d refused", r.refused)
		}
		perDeploy := "–"
		if r.done > 0 {
			perDeploy = fmt.Sprintf("%.1f", float64(r.report.Lost())/float64(r.done))
		}
		var classes []string
		closed, told := 0, 0
		for _, class := range load.Classes() {
			t := r.report.Classes[class]
			if t == nil {
				continue
			}
			closed, told = closed+t.ServerClosedIdle, told+t.ConnectionClose
			if t.Lost > 0 {
				classes = append(classes, fmt.Sprintf("%s %d", class, t.Lost))
			}
		}
		if classes == nil {
			classes = []string{"–"}
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %s | %s | %d | %d |\n", r.peer.title, deploys,
			r.report.Requests(), r.report.Lost(), perDeploy, strings.Join(classes, ", "), closed, told)
	}
	return b.String()
}

// conditions are the command, the clients, the machine and the versions.
func (b *bench) conditions(rows []row) string {
	var clients []string
	for _, p := range plans() {
		clients = append(clients, fmt.Sprintf("%d %s", p.Clients, p.Class))
	}
	versions := []string{runtime.Version(), "Linux " + peers.Kernel(), fmt.Sprintf("%d CPUs", runtime.NumCPU())}
	for _, r := range rows {
		if r.version != "" {
			versions = append(versions, r.version)
		}
	}
	return fmt.Sprintf("`%s`: %v of %s clients for each, a deploy every %v. %s.\n",
		strings.Join(append([]string{"go run ./integration/compare"}, b.shown()...), " "),
		b.duration, strings.Join(clients, ", "), b.every, strings.Join(versions, ", "))
}

// shown are the arguments that matter to the result.
func (b *bench) shown() []string {
	var args []string
	for i := 0; i < len(b.args); i++ {
		flag, _, whole := strings.Cut(b.args[i], "=")
		switch strings.TrimPrefix(flag, "-") {
		case "-h2load", "-o", "-readme", "-nginx", "-pm2": // one dash and two are the same
			flag = flag[1:]
		}
		switch flag {
		case "-h2load":
		case "-o", "-readme", "-nginx", "-pm2":
			if !whole {
				i++
			}
		default:
			args = append(args, b.args[i])
		}
	}
	return args
}
