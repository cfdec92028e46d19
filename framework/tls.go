package framework

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// TLS serves TLS on the listeners of these names, or on all if none is named,
// with the certificate and the key in these PEM files; the certificate's file
// may go on with intermediate ones. May be repeated for other listeners. A
// relative path counts from the first working directory.
//
// The files are read by each worker when it starts, so a reload serves a renewed
// certificate. One that is missing, broken or does not fit its key refuses the
// reload, with the reason, and the generation before goes on with the old one.
//
// HTTP is served as by http.Server.ServeTLS: HTTP/2 and HTTP/1.1, as Protocols
// and TLSNextProto of the http.Server say. HTTPServer can change the TLSConfig
// of the http.Server, for instance its MinVersion.
//
// The workers share the keys of session tickets, which the master makes anew
// each day: clients resume their sessions at any worker, and after reloads and
// upgrades. A ticket of one listener is not good for another.
//
// Default: no listener has TLS.
func TLS(certFile, keyFile string, listenerNames ...string) Option {
	return func(o *options) {
		said := fmt.Sprintf("TLS(%q, %q%s)", certFile, keyFile, more(listenerNames))
		cert, certOK := absolute(certFile)
		key, keyOK := absolute(keyFile)
		switch {
		case certFile == "" || keyFile == "":
			o.problem("%s: expected a file with the certificate and one with its key", said)
			return
		case !certOK || !keyOK:
			o.problem("%s: expected %s", said, expectedPath)
			return
		}
		o.tlsAsked = append(o.tlsAsked, &tlsSource{said: said, names: slices.Clone(listenerNames), load: func() (*tls.Config, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("certificate %s with key %s: %w", cert, key, err)
			}
			return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
		}})
	}
}

// TLSConfig serves TLS as TLS does, by a config that has a certificate or a
// function that gets one. It is cloned, as http.Server.ServeTLS does, so later
// changes do not count. main makes it anew in each process, and thus for each
// generation.
//
// Where the config has session ticket keys of its own (SetSessionTicketKeys,
// SessionTicketKey, WrapSession, UnwrapSession) or SessionTicketsDisabled, it
// keeps to that, as it does where the config has served before: several hosts for one name need keys of their own making.
// Sessions are resumed by workers of later generations too; what must be
// checked on each connection belongs into VerifyConnection, which is called for
// resumed ones, unlike VerifyPeerCertificate.
func TLSConfig(c *tls.Config, listenerNames ...string) Option {
	return func(o *options) {
		said := fmt.Sprintf("TLSConfig(config%s)", more(listenerNames))
		switch {
		case c == nil:
			o.problem("TLSConfig(nil): expected a config")
			return
		case !hasCertificate(c):
			o.problem("%s: expected a config with Certificates, GetCertificate or GetConfigForClient", said)
			return
		}
		given := c.Clone()
		o.tlsAsked = append(o.tlsAsked, &tlsSource{said: said, names: slices.Clone(listenerNames), load: func() (*tls.Config, error) {
			return given, nil
		}})
	}
}

// tlsSource is one option for TLS.
type tlsSource struct {
	said  string   // as it was written
	names []string // of listeners; none: all
	load  func() (*tls.Config, error)
}

// more is further arguments, as they were written.
func more(names []string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, ", %q", name)
	}
	return b.String()
}

func hasCertificate(c *tls.Config) bool {
	return len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil
}

// checkTLS finds the option of each listener.
func (o *options) checkTLS() {
	known := o.listenerNames()
	for _, t := range o.tlsAsked {
		names := t.names
		if len(names) == 0 {
			names = slices.Compact(slices.Sorted(slices.Values(known)))
		}
		for _, name := range names {
			switch other := o.tls[name]; {
			case !slices.Contains(known, name):
				o.problem("%s: no listener is called %q: expected one of %q", t.said, name, known)
			case other != nil:
				o.problem("%s: listener %q has %s: expected one option for a listener", t.said, name, other.said)
			default:
				o.tls[name] = t
			}
		}
	}
}

// loadTLS makes the configs of the listeners that have TLS, by name. It reads
// the files now, and each only once.
func (o *options) loadTLS() (map[string]*tls.Config, error) {
	loaded, configs := map[*tlsSource]*tls.Config{}, map[string]*tls.Config{}
	for _, name := range o.listenerNames() {
		t := o.tls[name]
		if t == nil {
			continue
		}
		if loaded[t] == nil {
			c, err := t.load()
			if err != nil {
				return nil, fmt.Errorf("listener %s: %w", name, err)
			}
			loaded[t] = c
		}
		configs[name] = loaded[t].Clone()
	}
	return configs, nil
}

// overTLS puts TLS beneath a serve function that knows nothing of it.
func overTLS(serve serveFunc, o *options) serveFunc {
	if len(o.tls) == 0 {
		return serve
	}
	return func(ctx context.Context, ls Listeners) error {
		configs, err := o.loadTLS()
		if err != nil {
			return err
		}
		l, over := lifeOf(ctx), newListeners()
		for name, ln := range ls.All() {
			if c := configs[name]; c != nil {
				l.tickets.use(name, c)
				ln = tls.NewListener(ln, c)
			}
			over.add(name, ln)
		}
		return serve(ctx, over)
	}
}
