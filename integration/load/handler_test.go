package load

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestHandlerRoutes(t *testing.T) {
	h := Handler("3.1")
	long := make([]byte, 600)
	for i := range long {
		long[i] = byte(i % 251)
	}
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string // "" is any
	}{
		{"GET", "/", "", 200, "ok\n"},
		{"POST", "/echo", "abc", 200, "abc"},
		{"GET", "/echo", "", 405, ""},
		{"POST", "/echo", strings.Repeat("a", maxEcho+1), 400, ""},
		{"GET", "/slow?d=1ms", "", 200, "slow 1ms\n"},
		{"GET", "/slow?d=-1s", "", 400, ""},
		{"GET", "/stream?d=3ms&every=1ms", "", 200, "chunk 1\nchunk 2\nchunk 3\nend\n"},
		{"GET", "/stream?d=3ms", "", 400, ""},
		{"GET", "/n?i=42", "", 200, "42"},
		{"GET", "/n?i=x", "", 400, ""},
		{"GET", "/pid", "", 200, fmt.Sprintln(os.Getpid())},
		{"GET", "/file?size=600", "", 200, string(long)},
		{"GET", "/file?size=-1", "", 400, ""},
		{"GET", "/other", "", 404, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.target, strings.NewReader(c.body)))
		if w.Code != c.status || c.want != "" && w.Body.String() != c.want {
			t.Errorf("%s %s: have %d %q, want %d %q", c.method, c.target, w.Code, w.Body, c.status, c.want)
		}
		if have := w.Header().Get("X-Worker"); have != "3.1" {
			t.Errorf("%s %s: have worker %q", c.method, c.target, have)
		}
	}
}

func TestLongAnswersEndWithTheirClient(t *testing.T) {
	h := Handler("1.1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, target := range []string{"/slow?d=5m", "/stream?d=5m&every=1m"} {
		func() {
			defer func() {
				if r := recover(); r != http.ErrAbortHandler {
					t.Errorf("%s: have panic %v, want the connection aborted", target, r)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil).WithContext(ctx))
		}()
	}
}
