//go:build linux

package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"github.com/baton-go/baton/integration/load"
	"golang.org/x/sys/unix"
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
	versions := []string{runtime.Version(), "Linux " + kernel(), fmt.Sprintf("%d CPUs", runtime.NumCPU())}
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

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// said is what of a program's output matches the group of the pattern.
func said(ctx context.Context, pattern, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if m := regexp.MustCompile(pattern).FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return "of unknown version"
}

func moduleVersion(binary, module string) string {
	info, err := buildinfo.ReadFile(binary)
	if err == nil {
		for _, d := range info.Deps {
			if d.Path == module {
				return d.Version
			}
		}
	}
	return "of unknown version"
}

// Markers of the part of a file that refresh replaces.
const (
	begin = "<!-- compare:begin -->"
	end   = "<!-- compare:end -->"
)

// refresh replaces what is between the markers in the file.
func refresh(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, []byte(begin))
	_, after, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return fmt.Errorf("%s: %w", path, errors.New("the markers "+begin+" and "+end+" are missing"))
	}
	whole := string(before) + begin + "\n" + text + end + string(after)
	return os.WriteFile(path, []byte(whole), 0o666)
}
