//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/peers"
)

// A peer is a kind of server, and a way to deploy it anew.
type peer struct {
	name    string // in -peers
	title   string // in the table
	ours    bool
	missing func(*bench) string // what is not installed and how to get it, or ""
	start   func(context.Context, *bench, string) (*server, error)
}

// known are those that can be measured, in the order of the table.
var known = []peer{
	{"baton-reload", "Baton, `HUP`", true, nothing, startBaton(batonReload)},
	{"baton-upgrade", "Baton, `USR2`", true, nothing, startBaton(batonUpgrade)},
	{"nginx", "nginx, `HUP`", false, nginxMissing, startNginx},
	{"tableflip", "tableflip and `http.Server.Shutdown`", false, nothing, startTableflip},
	{"pm2", "PM2 cluster, `pm2 reload`", false, pm2Missing, startPM2},
}

func nothing(*bench) string { return "" }

func peerNames() []string {
	var names []string
	for _, p := range known {
		names = append(names, p.name)
	}
	return names
}

// A server is a peer that serves.
type server struct {
	*peers.Server

	// deploy deploys it once and returns when that is over: false when the
	// server has refused to.
	deploy func(context.Context) (bool, error)
}

// endAll ends the server, which may be nil, and whatever else is left.
func endAll(s *server) error {
	if s == nil {
		return peers.EndAll(nil)
	}
	return peers.EndAll(s.Server)
}

// bench measures one peer after the other.
type bench struct {
	*settings
	dir, bin string
}

// workers is how many processes a server has that takes a number.
func (b *bench) workers() int { return runtime.NumCPU() }

// plans are the clients. None of them retries.
func plans() []load.Plan {
	return []load.Plan{
		{Class: load.PerConn, Clients: 16},
		{Class: load.KeepAlive, Clients: 32},
		{Class: load.Idle, Clients: 64},
		{Class: load.Slow, Clients: 8},
		{Class: load.Stream, Clients: 4},
		{Class: load.Pipelined, Clients: 8},
	}
}

// row is what was measured of a peer.
type row struct {
	peer          peer
	missing       string // why nothing was
	version       string
	report        load.Report
	done, refused int // deploys
}

// build builds the servers that are written in Go.
func (b *bench) build(ctx context.Context) error {
	return peers.Build(ctx, b.bin, "baton", "plain", "tableflip")
}

// measure starts the peer, has it under load, deploys it meanwhile, and leaves
// nothing of it.
func (b *bench) measure(ctx context.Context, p peer) (r row, err error) {
	dir := filepath.Join(b.dir, p.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return row{}, err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n%s", err, peers.LastLines(peers.LogPath(dir), 20))
		}
		_ = os.RemoveAll(dir)
	}()
	var s *server
	defer func() {
		if e := endAll(s); err == nil {
			err = e
		}
	}()
	if s, err = p.start(ctx, b, dir); err != nil {
		return row{}, err
	}
	if err := peers.WaitServing(ctx, s.Addr); err != nil {
		return row{}, err
	}

	r = row{peer: p, version: s.Version}
	loaded, cancel := context.WithTimeout(ctx, b.duration)
	defer cancel()
	reports := make(chan load.Report, 1)
	go func() {
		reports <- load.Run(loaded, load.Config{
			Network: "tcp", Addr: s.Addr, Plans: plans(), SlowFor: b.slowFor, StreamFor: b.streamFor,
		})
	}()
	r.done, r.refused, err = deployEvery(ctx, loaded, b.every, s)
	cancel() // unless it is over anyhow
	select {
	case r.report = <-reports:
		return r, err
	case <-ctx.Done():
		// Clients wait for their answers no longer when there is no server.
		_ = endAll(s)
		<-reports
		return r, ctx.Err()
	}
}

// deployTime bounds one deploy. That of PM2 takes as long as the slowest
// requests, that of tableflip a minute at most.
const deployTime = 90 * time.Second

// deployEvery deploys until loaded is done; the last deploy is not cut short.
func deployEvery(ctx, loaded context.Context, every time.Duration, s *server) (done, refused int, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-loaded.Done():
			return done, refused, nil
		case <-tick.C:
		}
		if loaded.Err() != nil { // both were ready
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, deployTime)
		ok, err := s.deploy(bounded)
		cancel()
		switch {
		case err != nil:
			return done, refused, fmt.Errorf("deploy %d: %w", done+refused+1, err)
		case ok:
			done++
		default:
			refused++
		}
	}
}
