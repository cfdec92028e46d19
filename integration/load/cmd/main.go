// Command load drives a server that answers as load.Handler does, prints what
// was lost, and exits with 1 when anything was.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/baton-go/baton/integration/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns 0 when nothing was lost, 1 when something was or no request was
// sent at all, 2 when the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var c load.Config
	flags.StringVar(&c.Network, "network", "tcp", "`network` of -addr: tcp or unix")
	flags.StringVar(&c.Addr, "addr", "", "`address` of the server")
	flags.DurationVar(&c.RequestTimeout, "timeout", 10*time.Second, "bound of one request")
	flags.DurationVar(&c.SlowFor, "slow-for", 2*time.Second, "how long a slow request takes")
	flags.DurationVar(&c.StreamFor, "stream-for", 5*time.Second, "how long a stream takes")
	flags.DurationVar(&c.StreamEvery, "stream-every", 100*time.Millisecond, "pause between two chunks of a stream")
	duration := flags.Duration("duration", 10*time.Second, "how long to send requests")
	think := flags.Duration("think", 0, "pause of all but the idle clients between two requests (default 2 to 10 ms)")
	clients := make(map[load.Class]*int)
	for _, class := range load.Classes() {
		clients[class] = flags.Int(string(class), 0, "`number` of "+string(class)+" clients")
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}

	total := 0
	for _, class := range load.Classes() {
		p := load.Plan{Class: class, Clients: *clients[class], Think: *think}
		if class == load.Idle {
			p.Think = 0
		}
		if p.Clients > 0 {
			c.Plans = append(c.Plans, p)
		}
		total += max(p.Clients, 0)
	}
	switch {
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "load: unexpected argument %q\n", flags.Arg(0))
		return 2
	case c.Addr == "":
		fmt.Fprintln(stderr, "load: -addr is missing")
		return 2
	case total == 0:
		fmt.Fprintln(stderr, "load: no clients: give -per-conn, -keep-alive, -idle, -slow, -stream or -pipelined")
		return 2
	}

	ctx, cancel := context.WithTimeout(ctx, *duration)
	defer cancel()
	report := load.Run(ctx, c)
	fmt.Fprint(stdout, report)
	if report.Lost() > 0 || report.Requests() == 0 {
		return 1
	}
	return 0
}
