package framework

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baton-go/baton/workers"
)

func echoBody(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Write(append(b, "echo"...))
}

// TestHTTP2ClientLosesNothing: net/http's own client, which repeats what the
// protocol says can be, through many drains, with many streams on a connection.
func TestHTTP2ClientLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    func() *succession
	}{
		{"h2c", func() *succession { return newSuccession(t, echoBody, unencryptedHTTP2) }},
		{"TLS", func() *succession { return newTLSSuccession(t, echoBody) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const drains, between = 20, 30
			s := tt.s()
			cl := &http.Client{Transport: s.transport(), Timeout: patience}
			var answered atomic.Int64
			stop := make(chan struct{})
			more := make(chan struct{}, 1)
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					for n := i; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						if err := requestEcho(cl, s.url(), n); err != nil {
							t.Error(err)
							return
						}
						if answered.Add(1)%between == 0 {
							select {
							case more <- struct{}{}:
							default:
							}
						}
					}
				})
			}
			var old []*reign
			for range drains {
				await(t, more, "more requests")
				old = append(old, s.succeed(hour()))
			}
			await(t, more, "more requests")
			close(stop)
			all.Wait()
			for _, r := range old {
				r.peaceful(t)
			}
			t.Logf("%d requests, %d drains", answered.Load(), drains)
		})
	}
}

// TestHTTP2EndsWithoutGoAway: with a net/http that does not send it after all,
// an idle connection is closed nevertheless.
func TestHTTP2EndsWithoutGoAway(t *testing.T) {
	s := newSuccession(t, echoBody, unencryptedHTTP2)
	c := dialH2(t, s.addr)
	c.get(1, "/")
	c.body(1)
	s.serving.s.mu.Lock()
	s.serving.s.http2 = new(http.Server)
	s.serving.s.mu.Unlock()
	r := s.succeed(workers.DrainOrder{Timeout: time.Hour, Grace: time.Millisecond})
	rest, _ := io.ReadAll(c.r)
	for len(rest) >= 9 {
		if rest[3] == frameGoAway {
			t.Error("GOAWAY came")
		}
		rest = rest[min(len(rest), 9+int(rest[2])):] // short frames all
	}
	wantDrained(t, r, workers.Tally{"http2": 1}, workers.Tally{})
}

// requestEcho alternates between GET and POST, with bodies of all sizes.
func requestEcho(cl *http.Client, url string, n int) error {
	var body []byte
	method := http.MethodGet
	if n%2 == 1 {
		method = http.MethodPost
		body = make([]byte, n%7*20_000)
		rand.Read(body)
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := cl.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && (resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK || !bytes.Equal(got, append(body, "echo"...))) {
		err = fmt.Errorf("%s %s, %d bytes of %d", resp.Proto, resp.Status, len(got), len(body)+4)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}
