package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// ErrNoService is wrapped by a Client's errors when nobody listens on the
// socket: nothing was asked of anyone.
var ErrNoService = errors.New("no service reached")

// StatusError is an answer that is neither what was asked for nor a verdict.
type StatusError struct {
	Code    int    // of HTTP
	Message string // what the server said
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s (%d)", e.Message, e.Code)
}

const maxAnswer = 16 << 20

// Client talks to a Server. Its methods are safe for concurrent use; each opens
// a connection of its own, so that a client outlives upgrades. They return an
// error wrapping ErrNoService when the socket cannot be connected to, and a
// *StatusError when the answer is an error.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the server at socketPath. It does not connect.
func NewClient(socketPath string) *Client {
	var d net.Dialer
	return &Client{socket: socketPath, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := d.DialContext(ctx, "unix", socketPath)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrNoService, err)
			}
			return c, nil
		},
	}}}
}

// Status asks for a snapshot of the service.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	raw, err := c.StatusJSON(ctx)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("control socket %s: status: %w", c.socket, err)
	}
	return s, nil
}

// StatusJSON is the same as the server wrote it, with the fields that this
// package does not know.
func (c *Client) StatusJSON(ctx context.Context) ([]byte, error) {
	code, raw, err := c.do(ctx, http.MethodGet, "/status", nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, statusError(code, raw)
	}
	return raw, nil
}

// Healthy is nil if the master says that it works; a *StatusError has the reason
// otherwise.
func (c *Client) Healthy(ctx context.Context) error { return c.probe(ctx, "/healthz") }

// Ready is nil if the service serves new connections; a *StatusError has the
// reason otherwise.
func (c *Client) Ready(ctx context.Context) error { return c.probe(ctx, "/readyz") }

// Reload asks for a reload and waits for its verdict. A refusal is a verdict
// that is not OK and no error. Ending ctx ends the wait, not the deploy; this
// holds for all that follow.
func (c *Client) Reload(ctx context.Context) (Verdict, error) {
	return c.verdict(ctx, "/reload", nil)
}

// Upgrade asks for an upgrade and waits for its verdict.
func (c *Client) Upgrade(ctx context.Context) (Verdict, error) {
	return c.verdict(ctx, "/upgrade", nil)
}

// Rollback asks for the release that served before, and waits for the verdict.
func (c *Client) Rollback(ctx context.Context) (Verdict, error) {
	return c.verdict(ctx, "/rollback", nil)
}

// Scale asks for another number of workers and waits for the verdict.
func (c *Client) Scale(ctx context.Context, r ScaleRequest) (Verdict, error) {
	return c.verdict(ctx, "/scale", r)
}

// Weight asks for other weights and waits for the verdict.
func (c *Client) Weight(ctx context.Context, r WeightRequest) (Verdict, error) {
	return c.verdict(ctx, "/weights", r)
}

// Stop asks the service to stop and waits for the verdict.
func (c *Client) Stop(ctx context.Context, r StopRequest) (Verdict, error) {
	return c.verdict(ctx, "/stop", r)
}

func (c *Client) probe(ctx context.Context, path string) error {
	code, raw, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return statusError(code, raw)
	}
	return nil
}

// maxAsked bounds how many masters are asked, one after the other.
const maxAsked = 10

func (c *Client) verdict(ctx context.Context, path string, req any) (Verdict, error) {
	for n := 1; ; n++ {
		v, err := c.ask(ctx, path, req)
		if err != nil || !v.Elsewhere || n == maxAsked {
			return v, err
		}
	}
}

func (c *Client) ask(ctx context.Context, path string, req any) (Verdict, error) {
	var v Verdict
	code, raw, err := c.do(ctx, http.MethodPost, path, req)
	if err != nil {
		return v, err
	}
	switch code {
	case http.StatusOK, http.StatusConflict, http.StatusServiceUnavailable:
	default:
		return v, statusError(code, raw)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("control socket %s: verdict: %w", c.socket, err)
	}
	return v, nil
}

func (c *Client) do(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		r = bytes.NewReader(b)
	}
	// The host is there because HTTP wants one; the dialer does not look at it.
	req, err := http.NewRequestWithContext(ctx, method, "http://baton"+path, r)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		// The URL in an *url.Error says nothing that a reader could use.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return 0, nil, fmt.Errorf("control socket %s: %s %s: %w", c.socket, method, path, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("control socket %s: %s %s: %w", c.socket, method, path, err)
	}
	return res.StatusCode, raw, nil
}

func statusError(code int, raw []byte) error {
	var e errorBody
	if json.Unmarshal(raw, &e) == nil && e.Error != "" {
		if e.Schema != Schema && e.Schema != 0 {
			e.Error += fmt.Sprintf("; the service has schema %d of the control socket, this client %d", e.Schema, Schema)
		}
		return &StatusError{Code: code, Message: e.Error}
	}
	msg := strings.TrimSpace(string(raw))
	if msg == "" {
		msg = http.StatusText(code)
	}
	return &StatusError{Code: code, Message: msg}
}
