//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/baton-go/baton/integration/peers"
)

// A peer is a kind of server.
type peer struct {
	name    string   // in -peers
	title   string   // in tables
	workers bool     // it has as many as there are CPUs
	env     []string // of Baton
	builds  []string // programs of package peers that it needs
	missing func(*bench) string
	start   func(ctx context.Context, b *bench, p peer, dir string) (*peers.Server, error)
}

const (
	plain  = "plain"
	nodeRR = "node-rr"
)

// known are the peers, in the order of the tables and of each round. All others
// are compared with the first.
var known = []peer{
	{name: plain, title: "net/http", builds: []string{"plain"}, missing: nothing, start: startPlain},
	baton("baton", "Baton"),
	baton("baton-least-connections", "Baton, `BATON_DISPATCH=least-connections`"),
	baton("baton-hash", "Baton, `BATON_DISPATCH=hash`"),
	baton("baton-weighted", "Baton, `BATON_DISPATCH=weighted`"),
	baton("baton-workers", "Baton, `BATON_ACCEPT=workers`"),
	baton("baton-kernel", "Baton, `BATON_ACCEPT=kernel!`"),
	{name: "tableflip", title: "tableflip and net/http", builds: []string{"tableflip"}, missing: nothing, start: startTableflip},
	{name: "fasthttp", title: "fasthttp, prefork", workers: true, builds: []string{"fasthttp"}, missing: nothing, start: startFasthttp},
	{name: nodeRR, title: "Node cluster, `rr`", workers: true, missing: nodeMissing, start: startNode("rr")},
	{name: "node-none", title: "Node cluster, `none`", workers: true, missing: nodeMissing, start: startNode("none")},
	{name: "nginx", title: "nginx before N net/http", workers: true, builds: []string{"plain"}, missing: nginxMissing, start: startNginx},
	{name: "haproxy", title: "HAProxy before N net/http", workers: true, builds: []string{"plain"}, missing: haproxyMissing, start: startHAProxy},
	{name: "pm2", title: "PM2 cluster", workers: true, missing: pm2Missing, start: startPM2},
}

// masterAccepts and all are the names of our peers.
var (
	masterAccepts = []string{"baton", "baton-least-connections", "baton-hash", "baton-weighted"}
	othersAccept  = []string{"baton-workers", "baton-kernel"}
	kernelAccepts = othersAccept[1:]
	modes         = append(masterAccepts[:1:1], othersAccept...)
	ours          = append(masterAccepts[:len(masterAccepts):len(masterAccepts)], othersAccept...)
)

func nothing(*bench) string          { return "" }
func nodeMissing(*bench) string      { return peers.NodeMissing() }
func nginxMissing(b *bench) string   { return peers.NginxMissing(b.nginx) }
func haproxyMissing(b *bench) string { return peers.HAProxyMissing(b.haproxy) }
func pm2Missing(b *bench) string     { return peers.PM2Missing(b.pm2) }

// manyClientsMissing says what the load takes to come from many addresses.
func manyClientsMissing(b *bench) string {
	if b.preload == "" {
		return "all clients have one address without a C compiler (`apt-get install gcc libc6-dev`)"
	}
	return ""
}

// baton is Baton with the variable that its title names.
func baton(name, title string) peer {
	p := peer{name: name, title: title, workers: true, builds: []string{"baton"}, missing: nothing, start: startBaton}
	if name == "baton-hash" {
		p.missing = manyClientsMissing
	}
	if _, variable, ok := strings.Cut(strings.TrimSuffix(title, "`"), "`"); ok {
		p.env = []string{variable}
	}
	return p
}

func startBaton(ctx context.Context, b *bench, p peer, dir string) (*peers.Server, error) {
	s, _, _, err := peers.StartBaton(ctx, b.bin, dir, p.env, "-tiny", b.file)
	return s, err
}

// unheeded names a variable of the peer's that this Baton takes no notice of: it
// starts with a value that no Baton knows.
func (b *bench) unheeded(ctx context.Context, p peer) (string, error) {
	for _, variable := range p.env {
		name, _, _ := strings.Cut(variable, "=")
		err := b.with(ctx, func(dir string) error {
			s, _, _, err := peers.StartBaton(ctx, b.bin, dir, []string{name + "=no-such-value"}, "-tiny", b.file)
			return endAll(s, err)
		})
		if err == nil {
			return name, nil
		}
	}
	return "", ctx.Err()
}

func startPlain(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
	return peers.StartPlain(ctx, b.bin, dir, "-tiny", b.file)
}

func startTableflip(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
	s, _, err := peers.StartTableflip(ctx, b.bin, dir, "-tiny", b.file)
	return s, err
}

func startFasthttp(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
	return peers.StartFasthttp(ctx, b.bin, dir, b.workers, b.file)
}

func startNode(policy string) func(context.Context, *bench, peer, string) (*peers.Server, error) {
	return func(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
		return peers.StartNode(ctx, dir, policy, b.workers, b.file)
	}
}

func startNginx(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
	return behind(ctx, b, dir, func(upstreams []string) (*peers.Server, error) {
		s, _, err := peers.StartNginx(ctx, b.nginx, dir, b.workers, upstreams...)
		return s, err
	})
}

func startHAProxy(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
	return behind(ctx, b, dir, func(upstreams []string) (*peers.Server, error) {
		return peers.StartHAProxy(ctx, b.haproxy, dir, b.workers, upstreams...)
	})
}

// behind starts the plain servers and then the proxy in front of them. They are
// all ended in one go: nobody is served any more.
func behind(ctx context.Context, b *bench, dir string, proxy func(upstreams []string) (*peers.Server, error)) (*peers.Server, error) {
	var ends []func()
	var upstreams []string
	for i := range b.workers {
		sub := filepath.Join(dir, fmt.Sprint(plain, i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return nil, err
		}
		s, err := peers.StartPlain(ctx, b.bin, sub, "-tiny", b.file)
		if err != nil {
			return nil, err
		}
		ends, upstreams = append(ends, s.End), append(upstreams, s.Addr)
	}
	s, err := proxy(upstreams)
	if err != nil {
		return nil, err
	}
	ends = append(ends, s.End)
	s.End = func() {
		for _, end := range ends {
			end()
		}
	}
	return s, nil
}

func startPM2(ctx context.Context, b *bench, _ peer, dir string) (*peers.Server, error) {
	pm2 := &peers.PM2{Program: b.pm2, Dir: dir, Script: "tiny.js", Workers: b.workers, Env: []string{"TINY_FILE=" + b.file}}
	return pm2.Start(ctx)
}
