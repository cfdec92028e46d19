//go:build linux

// Testapp is the service that the process tests drive: the handlers of the
// load generator, behind the framework, with the behaviour that is written
// behind the end of its executable (see package config).
//
// Beside the routes of load.Handler it answers
//
//	GET /version           the version, as every answer does in X-Version
//	GET /env?name=NAME     the variable as the worker sees it
//	GET /fds               how many descriptors the worker has open
//	GET /open?n=N          opens N more, and says how many could be
//	GET /release           closes those
//	GET /exit?code=N       the worker exits at once; there is no answer
//	GET /stray?d=D         leaves a process behind that ends after D, and says its pid
//	POST /late             the body and its trailer, read late; see handler.go
//	GET /hostile?do=NAME   the worker turns on its master; see hostile.go
//	GET /session           a session begins on the connection; see session.go
//
// Its arguments are further options; see arguments.go.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/tickets"
	"github.com/baton-go/baton/listener"
)

func main() {
	// By the inode, not by the path: a respawn runs the pinned binary.
	cfg, err := config.Read("/proc/self/exe")
	if err != nil {
		log.Fatal(err)
	}
	fail := failure(cfg)
	failAtStart(fail)
	quirkAtStart(cfg)
	talks := &sessions{version: cfg.Version}
	opts := append(options(cfg), talks.options(cfg)...)
	if cfg.Serve {
		err = framework.Serve(quirkyService(cfg, echoService(cfg, fail, talks)), opts...)
	} else {
		err = framework.RunFunc(func(ctx context.Context) (http.Handler, error) {
			if err := failInBuild(ctx, fail); err != nil {
				return nil, err
			}
			takeTime(ctx, cfg.BuildTakes)
			talks.ctx = ctx
			return handler(cfg, talks), nil
		}, opts...)
	}
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

func options(cfg config.Config) []framework.Option {
	var opts []framework.Option
	if cfg.Workers > 0 {
		opts = append(opts, framework.Workers(cfg.Workers))
	}
	for _, l := range cfg.Listeners {
		var o []listener.Option
		if l.Name != "" {
			o = append(o, listener.Name(l.Name))
		}
		opts = append(opts, framework.Listen(l.Network, l.Addr, o...))
	}
	if cfg.TLS != nil {
		opts = append(opts, framework.TLS(cfg.TLS.Cert, cfg.TLS.Key, cfg.TLS.Listeners...))
	}
	if cfg.TicketRotation > 0 {
		tickets.Rotation = cfg.TicketRotation
	}
	if cfg.H2C {
		opts = append(opts, framework.HTTPServer(func(s *http.Server) {
			s.Protocols = new(http.Protocols)
			s.Protocols.SetHTTP1(true)
			s.Protocols.SetUnencryptedHTTP2(true)
		}))
	}
	c := cfg.Options
	opts = given(opts, c.DrainTimeout, framework.DrainTimeout)
	opts = given(opts, c.StopTimeout, framework.StopTimeout)
	opts = given(opts, c.StopDelay, framework.StopDelay)
	opts = given(opts, c.ReadyTimeout, framework.ReadyTimeout)
	opts = given(opts, c.KillTimeout, framework.KillTimeout)
	opts = given(opts, c.HangTimeout, framework.HangTimeout)
	opts = given(opts, c.GiveUpAfter, framework.GiveUpAfter)
	opts = given(opts, c.IdleGrace, framework.IdleGrace)
	opts = append(opts, framework.BakeTime(0)) // most tests kill what is young
	opts = given(opts, c.DrainSpread, framework.DrainSpread)
	opts = given(opts, c.BakeTime, framework.BakeTime)
	opts = given(opts, c.MaxDraining, framework.MaxDraining)
	if c.PIDFile != "" {
		opts = append(opts, framework.PIDFile(c.PIDFile))
	}
	if name, foreign := strings.CutPrefix(c.Dispatch, "worker-"); name != "" && (!foreign || framework.Role() == framework.RoleWorker) {
		opts = append(opts, framework.Dispatch(policy(name)))
	}
	if c.ReadyCheck != "" {
		opts = append(opts, framework.ReadyCheck(c.ReadyCheck))
	}
	if c.User != "" {
		opts = append(opts, framework.User(c.User))
	}
	if c.RuntimeDir != "" {
		opts = append(opts, framework.RuntimeDir(c.RuntimeDir))
	}
	if c.EnvFile != "" {
		opts = append(opts, framework.EnvFile(c.EnvFile))
	}
	return append(opts, argumentOptions()...)
}

func given[T any](opts []framework.Option, value *T, option func(T) framework.Option) []framework.Option {
	if value == nil {
		return opts
	}
	return append(opts, option(*value))
}
