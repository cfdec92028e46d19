//go:build linux

// Compare deploys several servers again and again under the same load of
// clients that never retry, and prints what each of them lost as a Markdown
// table:
//
//	go run ./integration/compare
//	go run ./integration/compare -peers baton-reload,nginx -duration 1m
//	go run ./integration/compare -pm2 /tmp/pm2/node_modules/.bin/pm2 -readme README.md
//
// Every server is set up as its own documentation has it, answers as
// load.Handler does, and has all CPUs. One whose program is not installed is
// left out, and the table says how to get it. The exit status is 1 when Baton
// has lost a request or a server could not be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/baton-go/baton/integration/peers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// settings are the flags.
type settings struct {
	duration, every    time.Duration
	slowFor, streamFor time.Duration
	peers              []peer
	out, readme        string
	h2load             bool
	nginx, pm2         string // programs
	args               []string
}

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := &settings{args: args}
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&s.duration, "duration", 12*time.Second, "how long each server is under load")
	flags.DurationVar(&s.every, "every", time.Second, "from the start of a deploy to the next one, if it is over by then")
	flags.DurationVar(&s.slowFor, "slow-for", 2*time.Second, "how long a slow request takes")
	flags.DurationVar(&s.streamFor, "stream-for", 5*time.Second, "how long a stream takes")
	begin, end := peers.Markers("compare")
	names := flags.String("peers", strings.Join(peerNames(), ","), "the `servers` to measure")
	flags.StringVar(&s.out, "o", "", "`file` to write the table to, too")
	flags.StringVar(&s.readme, "readme", "", "`file` whose lines between "+begin+" and "+end+" are to be the table")
	flags.BoolVar(&s.h2load, "h2load", false, "also run h2load against Baton's HTTP/2 without TLS, and print what it says")
	flags.StringVar(&s.nginx, "nginx", "nginx", "`path` of nginx")
	flags.StringVar(&s.pm2, "pm2", "pm2", "`path` of pm2")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"duration", s.duration}, {"every", s.every}, {"slow-for", s.slowFor}, {"stream-for", s.streamFor}} {
		if d.value <= 0 {
			errs = append(errs, fmt.Errorf("-%s: want more than 0, have %v", d.flag, d.value))
		}
	}
	for name := range strings.SplitSeq(*names, ",") {
		i := slices.Index(peerNames(), name)
		if i < 0 {
			errs = append(errs, fmt.Errorf("-peers: no server is called %q; there are %s", name, strings.Join(peerNames(), ", ")))
			continue
		}
		s.peers = append(s.peers, known[i])
	}
	err := errors.Join(errs...)
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return s, err
}

// run returns 0; 1 when Baton lost a request or a server could not be
// measured; 2 when the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	lost, err := compare(ctx, s, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 1
	}
	if lost {
		return 1
	}
	return 0
}

// compare returns whether Baton lost anything.
func compare(ctx context.Context, s *settings, stdout, stderr io.Writer) (lost bool, err error) {
	if err := peers.AdoptOrphans(); err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	b := &bench{settings: s, dir: dir, bin: filepath.Join(dir, "bin")}
	if err := b.build(ctx); err != nil {
		return false, err
	}

	var rows []row
	var errs []error
	for _, p := range s.peers {
		if missing := p.missing(b); missing != "" {
			fmt.Fprintf(stderr, "%s is left out: %s\n", p.name, missing)
			rows = append(rows, row{peer: p, missing: missing})
			continue
		}
		fmt.Fprintf(stderr, "%s: under load for %v\n", p.name, s.duration)
		r, err := b.measure(ctx, p)
		if ctx.Err() != nil {
			return false, errors.New("interrupted")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			rows = append(rows, row{peer: p, missing: "it could not be measured"})
			continue
		}
		fmt.Fprintf(stderr, "%s\n", r.report)
		rows = append(rows, r)
		lost = lost || p.ours && r.report.Lost() > 0
	}

	text := table(rows) + "\n" + b.conditions(rows)
	fmt.Fprint(stdout, text)
	if s.out != "" {
		errs = append(errs, os.WriteFile(s.out, []byte(text), 0o666))
	}
	if s.readme != "" && errors.Join(errs...) == nil {
		errs = append(errs, peers.Refresh(s.readme, "compare", text))
	}
	if s.h2load {
		if err := b.h2load(ctx, stdout); err != nil {
			errs = append(errs, fmt.Errorf("h2load: %w", err))
		}
	}
	return lost, errors.Join(errs...)
}
