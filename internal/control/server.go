package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	maxBody    = 64 << 10
	maxConns   = 64
	maxHeader  = 16 << 10
	headerTime = 5 * time.Second
	bodyTime   = 5 * time.Second
	writeTime  = 10 * time.Second
	idleTime   = 30 * time.Second
	// newConnGrace is what Shutdown leaves a connection that has sent no request
	// yet. net/http would wait for it for 5 s, and anyone who only holds a
	// connection open would delay every upgrade by that.
	newConnGrace = 250 * time.Millisecond
)

// Server serves a Backend over HTTP.
type Server struct {
	backend Backend
	http    *http.Server
	euid    int
	// peerUID is the kernel's word on who is at the other end; a field, so that
	// a test can be somebody else.
	peerUID func(*net.UnixConn) (int, error)

	mu    sync.Mutex
	fresh map[net.Conn]struct{} // connections that have sent nothing yet
}

// NewServer makes a server; Serve starts it.
func NewServer(b Backend) *Server {
	s := &Server{backend: b, euid: os.Geteuid(), peerUID: peerUID, fresh: map[net.Conn]struct{}{}}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       s.connContext,
		ConnState:         s.connState,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers requests from l, which it closes in the end, until Shutdown;
// then it returns nil. At most 64 connections are open at a time, further ones
// wait in the kernel's queue.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(limit(l, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

// Shutdown takes no more connections, waits until the requests in flight have
// their verdict and its answer is written, and returns nil. When ctx ends first
// it cuts what is left and returns the context's error. Serve returns at its
// beginning, so wait for Shutdown, not for Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	grace := time.AfterFunc(newConnGrace, s.closeFresh)
	defer grace.Stop()
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
		return fmt.Errorf("control socket: shutdown: %w", err)
	}
	return nil
}

func (s *Server) connState(c net.Conn, st http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st == http.StateNew {
		s.fresh[c] = struct{}{}
	} else {
		delete(s.fresh, c)
	}
}

func (s *Server) closeFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.fresh {
		c.Close()
	}
}

// peer is who is at the other end of a connection.
type peer struct {
	uid int
	err error
}

type peerKey struct{}

func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	var p peer
	if lc, ok := c.(*limitedConn); ok {
		c = lc.Conn
	}
	if u, ok := c.(*net.UnixConn); ok {
		p.uid, p.err = s.peerUID(u)
	} else {
		p.err = fmt.Errorf("%T is not a unix socket", c)
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// allowed is nil for root and for the user that this process runs as.
func (s *Server) allowed(ctx context.Context) error {
	p, _ := ctx.Value(peerKey{}).(peer)
	switch {
	case p.err != nil:
		return fmt.Errorf("peer credentials: %w", p.err)
	case p.uid == 0 || p.uid == s.euid:
		return nil
	}
	return fmt.Errorf("uid %d may not control this service, uid %d and root may", p.uid, s.euid)
}

// handler is the whole of the routing: one table, so that 404 and 405 are
// answered in the same form as everything else.
func (s *Server) handler() http.Handler {
	routes := map[string]struct {
		method string
		serve  http.HandlerFunc
	}{
		"/status":   {http.MethodGet, s.status},
		"/healthz":  {http.MethodGet, probe(s.backend.Healthy)},
		"/readyz":   {http.MethodGet, probe(s.backend.Ready)},
		"/reload":   {http.MethodPost, s.reload},
		"/upgrade":  {http.MethodPost, s.upgrade},
		"/rollback": {http.MethodPost, s.rollback},
		"/scale":    {http.MethodPost, s.scale},
		"/weights":  {http.MethodPost, s.weight},
		"/stop":     {http.MethodPost, s.stop},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.allowed(r.Context()); err != nil {
			w.Header().Set("Connection", "close")
			fail(w, http.StatusForbidden, err.Error())
			return
		}
		route, ok := routes[r.URL.Path]
		switch {
		case !ok:
			fail(w, http.StatusNotFound, fmt.Sprintf("no such path: %q", r.URL.Path))
		case r.Method != route.method:
			w.Header().Set("Allow", route.method)
			fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s %s: expected %s", r.Method, r.URL.Path, route.method))
		default:
			route.serve(w, r)
		}
	})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.backend.Status().filled())
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		code, text := http.StatusOK, "ok"
		if err := check(); err != nil {
			code, text = http.StatusServiceUnavailable, err.Error()
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		write(w, code, []byte(text+"\n"))
	}
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	if body(w, r, &struct{}{}) {
		s.verdict(w, s.backend.Reload(context.WithoutCancel(r.Context())))
	}
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	if body(w, r, &struct{}{}) {
		s.verdict(w, s.backend.Upgrade(context.WithoutCancel(r.Context())))
	}
}

func (s *Server) rollback(w http.ResponseWriter, r *http.Request) {
	if body(w, r, &struct{}{}) {
		s.verdict(w, s.backend.Rollback(context.WithoutCancel(r.Context())))
	}
}

func (s *Server) scale(w http.ResponseWriter, r *http.Request) {
	var req ScaleRequest
	if !body(w, r, &req) {
		return
	}
	switch {
	case req.Workers != nil && req.Delta != 0:
		fail(w, http.StatusBadRequest, "fields workers and delta: expected one of them, not both")
	case req.Workers == nil && req.Delta == 0:
		fail(w, http.StatusBadRequest, "field workers: missing, expected workers, or a delta other than 0")
	case req.Workers != nil && *req.Workers < 1:
		fail(w, http.StatusBadRequest, fmt.Sprintf("field workers: %d, expected 1 or more", *req.Workers))
	default:
		s.verdict(w, s.backend.Scale(context.WithoutCancel(r.Context()), req))
	}
}

func (s *Server) weight(w http.ResponseWriter, r *http.Request) {
	var req WeightRequest
	if !body(w, r, &req) {
		return
	}
	if len(req.Weights) == 0 {
		fail(w, http.StatusBadRequest, "field weights: missing, expected a weight for a slot or more")
		return
	}
	s.verdict(w, s.backend.Weight(context.WithoutCancel(r.Context()), req))
}

func (s *Server) stop(w http.ResponseWriter, r *http.Request) {
	var req StopRequest
	if body(w, r, &req) {
		s.verdict(w, s.backend.Stop(context.WithoutCancel(r.Context()), req))
	}
}

func (s *Server) verdict(w http.ResponseWriter, v Verdict) {
	code := http.StatusOK
	if !v.OK {
		code = http.StatusConflict
		if s.backend.Status().State == StateStopping {
			code = http.StatusServiceUnavailable
		}
	}
	answer(w, code, v)
}

// body reads the request's JSON into v; an empty body leaves v as it is. When
// it returns false the request has been answered.
func body(w http.ResponseWriter, r *http.Request, v any) bool {
	// The deadline holds for the body only: left in place it would end the
	// connection of a client that waits for a long deploy.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = rc.SetReadDeadline(time.Time{})
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("body: more than %d bytes", maxBody))
		return false
	case err != nil:
		fail(w, http.StatusBadRequest, "body: "+err.Error())
		return false
	case len(raw) == 0:
		return true
	}
	if err := decode(raw, v); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

// fail answers with an error.
func fail(w http.ResponseWriter, code int, msg string) {
	answer(w, code, errorBody{Error: msg, Schema: Schema})
}

type errorBody struct {
	Error  string `json:"error"`
	Schema int    `json:"schema"`
}

func answer(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"encoding the answer failed"}`)
		slog.Error("control socket: encoding an answer failed", "reason", err)
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, code, append(b, '\n'))
}

func write(w http.ResponseWriter, code int, b []byte) {
	// Set before each answer instead of once a connection: the wait for a
	// verdict has no bound, a client that does not read has.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(code)
	_, _ = w.Write(b)
}
