package framework

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// newHTTP2 makes srv serve its HTTP/2 connections by another server, and
// returns that one: its Shutdown sends GOAWAY on all of them, and leaves those
// of HTTP/1 alone. It returns nil, and changes nothing, if srv serves no
// HTTP/2, or the application has chosen how.
//
// net/http keeps the state of HTTP/2 connections, and sends GOAWAY to them at
// Shutdown, with the server for which it has filled TLSNextProto. It calls
// these functions with the server that serves, and takes handler, hooks and
// limits from that. The other server itself never has a connection, so that
// its Shutdown has none to close and nothing to wait for.
//
// The GOAWAY names the last stream that has arrived. What a client has sent
// beyond it is ignored, and is the client's to send again; the running streams
// finish, and a second after the last of them net/http closes the connection.
// A first GOAWAY that refuses no stream yet, as RFC 9113 proposes in section 6.8,
// would spare clients that repetition. It takes a server of our own for HTTP/2,
// or one that writes into the frames of net/http's, which is too high a price.
func newHTTP2(srv *http.Server) *http.Server {
	if srv.TLSNextProto != nil {
		return nil
	}
	other := &http.Server{
		Protocols: srv.Protocols, HTTP2: srv.HTTP2, TLSConfig: srv.TLSConfig,
		IdleTimeout: srv.IdleTimeout, ReadTimeout: srv.ReadTimeout, ErrorLog: srv.ErrorLog,
	}
	_ = other.Serve(noListener{})
	if other.TLSNextProto["h2"] == nil {
		return nil // srv will say why, if that is an error
	}
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	for proto, serve := range other.TLSNextProto {
		srv.TLSNextProto[proto] = func(hs *http.Server, c *tls.Conn, h http.Handler) {
			// How net/http itself gets at the context.
			if base, ok := h.(interface{ BaseContext() context.Context }); ok {
				if st := connOf(base.BaseContext()); st != nil {
					st.h2.Store(true)
				}
			}
			serve(hs, c, h)
		}
	}
	return other
}

// noListener has ended from the start.
type noListener struct{ net.Listener }

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }

// goAway tells the clients of those HTTP/2 connections that have not been told.
func (s *httpServer) goAway() {
	s.mu.Lock()
	some := len(s.untold) > 0
	for st := range s.untold {
		st.closing.Store(true)
		st.goAway = time.Now()
	}
	clear(s.untold)
	s.mu.Unlock()
	if some {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.http2.Shutdown(over) // may be repeated; each connection gets one GOAWAY
	}
}
