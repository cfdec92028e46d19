//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/baton-go/baton/integration/peers"
	"github.com/baton-go/baton/integration/peers/tiny"
)

// bench measures the peers.
type bench struct {
	*settings
	dir, bin, file string
	preload        string // into wrk, or ""
	workers        int
	intervals      map[string]time.Duration // of the open loops
}

// A contender is a peer of this run.
type contender struct {
	peer
	version     string
	unavailable string // why nothing was measured
	differs     string // its answers from those of net/http
}

// An outcome is what a run has come to.
type outcome struct {
	contenders []contender
	samples    []sample
	service    []finding
	failures   []string
	rounds     int // those that are complete
}

// prepare builds the servers and makes the file that they answer with.
func (b *bench) prepare(ctx context.Context) error {
	b.bin, b.file = filepath.Join(b.dir, "bin"), filepath.Join(b.dir, "file")
	if err := os.WriteFile(b.file, tiny.Body(), 0o600); err != nil {
		return err
	}
	var err error
	if b.preload, err = preload(ctx, b.dir); err != nil {
		return err
	}
	var programs []string
	for _, p := range b.peers {
		programs = append(programs, p.builds...)
	}
	slices.Sort(programs)
	return peers.Build(ctx, b.bin, slices.Compact(programs)...)
}

// with gives f a directory, which it removes; what f has started must have ended.
func (b *bench) with(ctx context.Context, f func(dir string) error) error {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err = f(dir); err != nil && ctx.Err() == nil {
		if log := strings.TrimSpace(peers.LastLines(peers.LogPath(dir), 20)); log != "" {
			err = fmt.Errorf("%w\n%s", err, log)
		}
	}
	return err
}

// endAll ends the server and everything else, whatever has happened before.
func endAll(s *peers.Server, before error) error {
	err := peers.EndAll(s)
	if before != nil {
		return before
	}
	return err
}

// serve starts the peer, calls f when it serves, and leaves nothing of it.
func (b *bench) serve(ctx context.Context, p peer, f func(*peers.Server) error) error {
	return b.with(ctx, func(dir string) error {
		s, err := p.start(ctx, b, p, dir)
		if err == nil {
			err = peers.WaitServing(ctx, s.Addr)
		}
		if err == nil {
			err = f(s)
		}
		return endAll(s, err)
	})
}

// examine starts each peer once: what cannot be measured is known from the
// beginning, and what answers otherwise than net/http, too.
func (b *bench) examine(ctx context.Context, stderr io.Writer) ([]contender, error) {
	var found []contender
	var want examination
	for _, p := range b.peers {
		c := contender{peer: p, unavailable: p.missing(b)}
		if c.unavailable == "" {
			unheeded, err := b.unheeded(ctx, p)
			if err != nil {
				return nil, err
			}
			if unheeded != "" {
				c.unavailable = "this Baton does not know `" + unheeded + "`"
			}
		}
		if c.unavailable == "" {
			err := b.serve(ctx, p, func(s *peers.Server) error {
				have, err := examine(s.Addr)
				if p.name == plain {
					want = have
				}
				c.version, c.differs = s.Version, have.differs(want)
				return errors.Join(err, have.check(want))
			})
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil && p.name == plain {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			if err != nil {
				fmt.Fprintf(stderr, "%s: %v\n", p.name, err)
				c.unavailable = "it does not start: " + strings.ReplaceAll(firstLine(err), "|", "\\|")
			}
		}
		if c.unavailable != "" {
			fmt.Fprintf(stderr, "%s is not available: %s\n", p.name, c.unavailable)
		}
		found = append(found, c)
	}
	return found, nil
}

// firstLine is what the error says, and the last thing that the server has said.
func firstLine(err error) string {
	first, log, _ := strings.Cut(err.Error(), "\n")
	if log = strings.TrimSpace(log); log != "" {
		first += ": " + log[strings.LastIndexByte(log, '\n')+1:]
	}
	return first
}

// measure measures all rounds. In each a load has all peers by turns, so that
// what is compared with net/http was measured soon after it; each sample is of a
// server that was started for it. When ctx is done, it returns what it has.
func (b *bench) measure(ctx context.Context, stderr io.Writer) (*outcome, error) {
	contenders, err := b.examine(ctx, stderr)
	if err != nil {
		return nil, err
	}
	o := &outcome{contenders: contenders}
	net := contenders[0]
	for _, l := range b.loads {
		if l.open == nil {
			continue
		}
		err := b.serve(ctx, net.peer, func(s *peers.Server) error { return b.calibrate(ctx, s.Addr, l) })
		if err != nil {
			return nil, fmt.Errorf("%s: find the rate: %w", l.name, err)
		}
		fmt.Fprintf(stderr, "%s: %.0f requests/s\n", l.name, b.rate(l))
	}
	if b.service {
		o.service, o.failures = b.services(ctx, contenders, stderr)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	available := slices.DeleteFunc(slices.Clone(contenders), func(c contender) bool { return c.unavailable != "" })
	p := &progress{to: stderr, total: b.rounds * len(b.loads) * len(available), began: time.Now()}
	for round := range b.rounds {
		for _, l := range b.loads {
			for _, c := range available {
				s, err := b.sample(ctx, round+1, l, c.peer)
				if ctx.Err() != nil {
					return o, ctx.Err()
				}
				where := fmt.Sprintf("round %d of %d, %s, %s", round+1, b.rounds, l.name, c.name)
				if err != nil {
					p.done(where, err.Error())
					said, _, _ := strings.Cut(err.Error(), "\n")
					o.failures = append(o.failures, where+": "+said)
					continue
				}
				o.samples = append(o.samples, s)
				p.done(where, s.String())
			}
		}
		o.rounds++
	}
	return o, nil
}

func (b *bench) sample(ctx context.Context, round int, l load, p peer) (sample, error) {
	var s sample
	err := b.serve(ctx, p, func(server *peers.Server) error {
		var err error
		s, err = l.run(ctx, b, server.Addr)
		return err
	})
	s.Round, s.Load, s.Peer = round, l.name, p.name
	return s, err
}

// rate of an open loop, in requests per second.
func (b *bench) rate(l load) float64 { return float64(time.Second) / float64(b.intervals[l.name]) }

func (s sample) String() string {
	text := fmt.Sprintf("%.0f requests/s, %.0f ms of CPU per 1,000", s.Rate, s.CPU*1000)
	if s.P99 > 0 {
		text += fmt.Sprintf(", p99 %.2f ms", s.P99)
	}
	if s.Errors > 0 {
		text += fmt.Sprintf(", %d errors", s.Errors)
	}
	return text
}

// progress says how far the run is.
type progress struct {
	to       io.Writer
	n, total int
	began    time.Time
}

func (p *progress) done(where, what string) {
	p.n++
	left := time.Since(p.began) / time.Duration(p.n) * time.Duration(p.total-p.n)
	fmt.Fprintf(p.to, "[%d of %d, %v to go] %s: %s\n", p.n, p.total, left.Round(time.Second), where, what)
}
