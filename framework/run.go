package framework

import (
	"context"
	"fmt"
	"net/http"
	"testing"
)

// Run serves h, and returns when the service has stopped: nil after a stop that
// was asked for. It is all of master, worker and single process; the code
// after it runs in each of them. A nil h is http.DefaultServeMux.
//
// What main does before Run happens in every process. An application that
// opens things uses RunFunc.
//
// In PID 1, a container's entry point, Run starts the master as its child and
// does not return: it exits with the status of the master.
func Run(h http.Handler, opts ...Option) error {
	if h == nil {
		h = http.DefaultServeMux
	}
	return RunFunc(func(context.Context) (http.Handler, error) { return h, nil }, opts...)
}

// RunFunc is Run for an application that has something to build: build is
// called in workers only, once in each, before it is ready. An error refuses
// the worker's generation, and the one before goes on serving.
//
// build's context ends when the worker's last connection has ended.
func RunFunc(build func(context.Context) (http.Handler, error), opts ...Option) error {
	if build == nil {
		return configError([]string{"RunFunc(nil): expected a function"})
	}
	return run(opts, func(o *options) serveFunc { return serveHTTP(build, o) })
}

// Serve is Run for any server that accepts on a net.Listener. serve is called
// in workers only. When its context is done it stops accepting, finishes what
// it has, and returns; returning earlier, with or without an error, counts as a
// crash. The worker is ready when serve has called Ready, or Accept on every
// listener.
//
// Listeners with TLS yield connections of type *tls.Conn, on which the first
// Read or Write does the handshake.
//
// To stop accepting, close the listeners: connections that have not been
// accepted go to another worker. An http.Server is better run by RunFunc, for
// its Shutdown drops requests that it has just read, and closes idle
// connections under clients that may be writing.
func Serve(serve func(context.Context, Listeners) error, opts ...Option) error {
	if serve == nil {
		return configError([]string{"Serve(nil): expected a function"})
	}
	return run(opts, func(o *options) serveFunc { return overTLS(serve, o) }, noHandler)
}

type serveFunc func(context.Context, Listeners) error

func run(opts []Option, app func(*options) serveFunc, checks ...func(*options)) error {
	o, err := resolve(opts, currentEnvironment(), checks...)
	if err != nil {
		return err
	}
	if mark != nil {
		return runWorker(o, mark, app(o))
	}
	if o.single {
		return runSingle(o, app(o))
	}
	if testing.Testing() {
		return fmt.Errorf("%w: it would be started again as a worker; use SingleProcess() or package frameworktest", ErrInTest)
	}
	if Role() == RoleInit {
		return runInit(o)
	}
	return runMaster(o, app(o))
}
