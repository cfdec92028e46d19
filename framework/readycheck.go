package framework

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// ReadyCheck asks each new worker for a path, by a GET through its own handler,
// before it counts as ready, so that a release which starts and cannot answer
// is refused. An answer below 400 is good. 503 means not yet: it is asked again
// until ReadyTimeout. Any other answer refuses the generation at once, and so
// does a handler that panics.
//
// The handler is that of Run or RunFunc, and is called directly: hooks of the
// http.Server take no part. The request looks like one from this machine, with
// TLS if the listener has it.
//
// Default "": nothing is asked. Variable BATON_READY_CHECK. Not for Serve, which
// has no handler: see ReadyCheckFunc.
func ReadyCheck(path string) Option { return readyCheckVar.code(path) }

// ReadyCheckFunc calls f in each new worker once it accepts connections, before
// it counts as ready. An error refuses its generation. ctx ends after
// ReadyTimeout. May be repeated; they are called in the order given, after the
// request of ReadyCheck.
//
// Default: none.
func ReadyCheckFunc(f func(ctx context.Context) error) Option {
	return func(o *options) {
		if f == nil {
			o.problem("ReadyCheckFunc(nil): expected a function")
			return
		}
		o.readyChecks = append(o.readyChecks, f)
	}
}

var readyCheckVar = variable[string]{
	option: "ReadyCheck", name: "BATON_READY_CHECK",
	expected: `a path that begins with "/", as in a request`,
	at:       func(o *options) *string { return &o.readyCheck },
	parse:    func(s string) (string, bool) { return s, true },
	check: func(s string) (string, bool) {
		_, err := http.NewRequest(http.MethodGet, "http://localhost"+s, nil)
		return s, s == "" || strings.HasPrefix(s, "/") && err == nil
	},
	format: strconv.Quote,
}

// noHandler is the check of Serve.
func noHandler(o *options) {
	if o.readyCheck != "" {
		o.problem("%s: Serve has no handler to ask: expected ReadyCheckFunc", o.source("ReadyCheck", strconv.Quote(o.readyCheck)))
	}
}

// checkPause is how long a worker that is not ready yet is left alone.
const checkPause = 100 * time.Millisecond

// passes asks whether this worker can serve.
func (o *options) passes(ctx context.Context, built <-chan http.Handler) error {
	ctx, cancel := context.WithTimeout(ctx, o.ReadyTimeout)
	defer cancel()
	if o.readyCheck != "" {
		select {
		case h := <-built:
			if err := o.askHandler(ctx, h); err != nil {
				return fmt.Errorf("ready check %s: %w", o.readyCheck, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("ready check %s: %w", o.readyCheck, ctx.Err())
		}
	}
	for _, f := range o.readyChecks {
		if err := f(ctx); err != nil {
			return fmt.Errorf("ready check: %w", err)
		}
	}
	return nil
}

func (o *options) askHandler(ctx context.Context, h http.Handler) error {
	said := ""
	for {
		code, text, err := askOnce(ctx, h, o.readyCheck, o.readyTLS())
		switch {
		case err != nil:
			return err
		case code < http.StatusBadRequest:
			return nil
		}
		err = fmt.Errorf("status %d", code)
		if text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		if code != http.StatusServiceUnavailable {
			return err
		}
		if err.Error() != said { // what the master keeps, should time run out
			said = err.Error()
			fmt.Fprintf(os.Stderr, "baton: ready check %s: not yet: %s\n", o.readyCheck, said)
		}
		select {
		case <-time.After(checkPause):
		case <-ctx.Done():
			return fmt.Errorf("not ready within %v: %w", o.ReadyTimeout, err)
		}
	}
}

// askOnce sends one request through h.
func askOnce(ctx context.Context, h http.Handler, path string, state *tls.ConnectionState) (code int, text string, err error) {
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	r.RequestURI, r.RemoteAddr, r.TLS = path, "127.0.0.1:0", state
	r.Header.Set("User-Agent", "baton-ready-check")
	a := &checkAnswer{header: http.Header{}}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panics: %v", p)
		}
	}()
	h.ServeHTTP(a, r)
	a.WriteHeader(http.StatusOK)
	return a.code, strings.TrimSpace(a.body.String()), nil
}

// readyTLS is what the check says of TLS: of the first listener that the main
// handler serves.
func (o *options) readyTLS() *tls.ConnectionState {
	for _, name := range o.listenerNames() {
		if _, own := o.handlers[name]; own {
			continue
		}
		if o.tls[name] == nil {
			return nil
		}
		return &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	}
	return nil
}

// checkAnswer keeps the status of an answer, and the beginning of its body.
type checkAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

const maxCheckBody = 512

func (a *checkAnswer) Header() http.Header { return a.header }

func (a *checkAnswer) WriteHeader(code int) {
	if a.code == 0 && code >= http.StatusOK {
		a.code = code
	}
}

func (a *checkAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body.Write(p[:min(len(p), maxCheckBody-a.body.Len())])
	return len(p), nil
}

// Flush is there for handlers that insist on it.
func (a *checkAnswer) Flush() {}
