//go:build linux

// Bench measures how fast Baton is beside other servers, and plain net/http
// before all: the same tiny handler, the same CPUs, round after round.
//
//	go run ./integration/bench
//	go run ./integration/bench -rounds 5 -duration 2s -peers baton,nginx -loads keep-alive
//	go run ./integration/bench -out /tmp/bench -readme README.md
//	go run ./integration/bench -short
//
// It prints Markdown; -out is where JSON with every sample and the charts go,
// too. wrk saturates the servers, and needs to be installed; the latencies are
// those of an open loop, at half of what net/http can. A server whose program is
// not installed is left out, and the tables say how to get it. Ctrl-C ends the
// run early, with what has been measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
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
	duration                 time.Duration
	rounds, idle             int
	service                  bool // look at our services, too
	open, reloads            int
	watch                    time.Duration
	peers                    []peer // net/http is the first
	loads                    []load
	out, readme              string
	wrk, nginx, haproxy, pm2 string // programs
	args                     []string
}

// What -short stands for.
const (
	shortDuration = 200 * time.Millisecond
	shortIdle     = 50
	shortReloads  = 2
)

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := &settings{args: args}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	begin, end := peers.Markers(marker)
	flags.DurationVar(&s.duration, "duration", 5*time.Second, "how long each load lasts, for each server in each round")
	flags.IntVar(&s.rounds, "rounds", enough, "how often everything is measured")
	flags.IntVar(&s.idle, "idle", 1000, "idle connections of that load")
	flags.BoolVar(&s.service, "service", true, "look at what Baton costs beside requests, too: wakeups, memory, balance, reloads")
	flags.IntVar(&s.open, "open", 10000, "open connections with which the master's memory is looked at")
	flags.IntVar(&s.reloads, "reloads", 100, "reloads whose time is taken")
	flags.DurationVar(&s.watch, "watch", 12*time.Second, "how long an idle service is watched")
	peerList := flags.String("peers", names(known), "the `servers` to measure; "+plain+" always is")
	loadList := flags.String("loads", names(loads), "the `loads`")
	short := flags.Bool("short", false, fmt.Sprintf("see that it works: -duration %v -rounds 1 -idle %d -open %[2]d -reloads %d -watch %[1]v -peers baton, unless given", shortDuration, shortIdle, shortReloads))
	flags.StringVar(&s.out, "out", "", "`directory` to write Markdown, JSON and SVG to, too")
	flags.StringVar(&s.readme, "readme", "", "`file` whose lines between "+begin+" and "+end+" are to be the Markdown")
	flags.StringVar(&s.wrk, "wrk", "wrk", "`path` of wrk")
	flags.StringVar(&s.nginx, "nginx", "nginx", "`path` of nginx")
	flags.StringVar(&s.haproxy, "haproxy", "haproxy", "`path` of HAProxy")
	flags.StringVar(&s.pm2, "pm2", "pm2", "`path` of pm2")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *short {
		given := make(map[string]bool)
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{
			"duration": shortDuration.String(), "watch": shortDuration.String(), "rounds": "1", "peers": "baton",
			"idle": fmt.Sprint(shortIdle), "open": fmt.Sprint(shortIdle), "reloads": fmt.Sprint(shortReloads),
		} {
			if !given[name] {
				_ = flags.Set(name, value)
			}
		}
	}
	var errs [5]error
	if flags.NArg() > 0 {
		errs[0] = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if min(s.duration, s.watch) < shortDuration {
		errs[1] = fmt.Errorf("-duration, -watch: want %v or more, have %v and %v", shortDuration, s.duration, s.watch)
	}
	if min(s.rounds, s.idle, s.open, s.reloads) < 1 {
		errs[2] = fmt.Errorf("-rounds, -idle, -open, -reloads: want 1 or more, have %d, %d, %d and %d", s.rounds, s.idle, s.open, s.reloads)
	}
	s.peers, errs[3] = choose("-peers", *peerList, known)
	s.loads, errs[4] = choose("-loads", *loadList, loads)
	if len(s.peers) > 0 && s.peers[0].name != plain {
		s.peers = slices.Insert(s.peers, 0, known[0])
	}
	err := errors.Join(errs[:]...)
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return s, err
}

func (p peer) called() string { return p.name }
func (l load) called() string { return l.name }

// names are those that a flag takes.
func names[T interface{ called() string }](all []T) string {
	var list []string
	for _, t := range all {
		list = append(list, t.called())
	}
	return strings.Join(list, ",")
}

// choose returns those that the list names, in the order of all.
func choose[T interface{ called() string }](flag, list string, all []T) ([]T, error) {
	wanted := strings.Split(list, ",")
	var errs []error
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(t T) bool { return t.called() == name }) {
			errs = append(errs, fmt.Errorf("%s: there is no %q; there are %s", flag, name, names(all)))
		}
	}
	var chosen []T
	for _, t := range all {
		if slices.Contains(wanted, t.called()) {
			chosen = append(chosen, t)
		}
	}
	return chosen, errors.Join(errs...)
}

// run returns 0; 1 when something could not be measured or the run was
// interrupted; 2 when the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := measure(ctx, s, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, s *settings, stdout, stderr io.Writer) error {
	if slices.ContainsFunc(s.loads, func(l load) bool { return l.wrk != nil }) {
		if _, err := exec.LookPath(s.wrk); err != nil {
			return errors.New("wrk is not installed (`apt-get install wrk`, or `-wrk path`)")
		}
	}
	if err := peers.AdoptOrphans(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The generator's own collections would show as latencies of the servers.
	defer debug.SetGCPercent(debug.SetGCPercent(400))

	b := &bench{settings: s, dir: dir, workers: runtime.NumCPU(), intervals: make(map[string]time.Duration)}
	if err := b.prepare(ctx); err != nil {
		return interrupted(ctx, err)
	}
	environment := b.environment(ctx)
	o, err := b.measure(ctx, stderr)
	if o == nil || o.rounds == 0 {
		return interrupted(ctx, err)
	}
	// Of a round that was cut short some would have more than others.
	o.samples = slices.DeleteFunc(o.samples, func(s sample) bool { return s.Round > o.rounds })
	r := b.report(o, environment)
	text := r.markdown("")
	fmt.Fprint(stdout, text)
	errs := []error{interrupted(ctx, err)}
	if s.out != "" {
		errs = append(errs, r.write(s.out))
	}
	// Half a run does not replace a whole one. Samples that failed do not count,
	// and the text says how many.
	if s.readme != "" && errors.Join(errs...) == nil {
		errs = append(errs, peers.Refresh(s.readme, marker, r.markdown(chartsFrom(s.readme, s.out))))
	}
	for _, f := range o.failures {
		errs = append(errs, errors.New(f))
	}
	return errors.Join(errs...)
}

// interrupted says so in place of what came of it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// chartsFrom is how the charts in out are linked to from the file, or "" when
// they do not lie below it.
func chartsFrom(file, out string) string {
	if out == "" {
		return ""
	}
	path, err := filepath.Rel(filepath.Dir(file), out)
	if err != nil || !filepath.IsLocal(path) {
		return ""
	}
	return filepath.ToSlash(path)
}
