//go:build linux

package integration

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

	"github.com/baton-go/baton/internal/control"
)

// h2Load is net/http's own client for HTTP/2 with many streams on a connection.
// It repeats, as the protocol says, what a server has refused by GOAWAY, and
// nothing else.
type h2Load struct {
	client   *http.Client
	url      string
	stopped  chan struct{}
	all      sync.WaitGroup
	requests atomic.Int64
	failed   atomic.Int64
	first    atomic.Pointer[error]
}

func startH2(s *service, clients int) *h2Load {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	s.t.Cleanup(tr.CloseIdleConnections)
	l := &h2Load{client: &http.Client{Transport: tr, Timeout: waitTime}, url: "http://" + s.addr, stopped: make(chan struct{})}
	for i := range clients {
		l.all.Go(func() {
			for n := i; ; n++ {
				select {
				case <-l.stopped:
					return
				default:
				}
				if err := l.request(n); err != nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, &err)
				}
				l.requests.Add(1)
			}
		})
	}
	return l
}

// request alternates between GET and POST, with bodies up to 100 KB.
func (l *h2Load) request(n int) error {
	method, path, want := http.MethodGet, "/", []byte("ok\n")
	var body []byte
	if n%2 == 1 {
		body = make([]byte, n%11*10_000)
		rand.Read(body)
		method, path, want = http.MethodPost, "/echo", body
	}
	req, err := http.NewRequest(method, l.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && (resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK || !bytes.Equal(got, want)) {
		err = fmt.Errorf("%s %s, %d bytes of %d", resp.Proto, resp.Status, len(got), len(want))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// await waits for n more requests.
func (l *h2Load) await(s *service, n int64) {
	s.t.Helper()
	n += l.requests.Load()
	eventually(s.t, waitTime, "more requests", func() bool { return l.requests.Load() >= n })
}

// finish ends the load and requires that nothing has failed.
func (l *h2Load) finish(t *testing.T) {
	t.Helper()
	close(l.stopped)
	l.all.Wait()
	t.Logf("%d requests", l.requests.Load())
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", n, l.requests.Load(), *l.first.Load())
	}
}

func TestHTTP2LosesNothing(t *testing.T) {
	t.Parallel() // its load leaves room for others
	for name, deploy := range map[string]func(*service) control.Verdict{
		"reload":  (*service).reload,
		"upgrade": (*service).upgrade,
	} {
		t.Run(name, func(t *testing.T) {
			// The deploys come faster than connections end, a second after GOAWAY.
			s := newService(t, appConfig{Workers: 2, H2C: true, Options: appOptions{MaxDraining: new(256)}})
			l := startH2(s, 8)
			deploys := 0
			for end := time.Now().Add(tier(3*time.Second, 30*time.Second)); deploys < 5 || time.Now().Before(end); deploys++ {
				l.await(s, 20) // more than are under way: some go to the new generation
				if v := deploy(s); !v.OK {
					t.Fatalf("%+v", v)
				}
			}
			l.finish(t)
			t.Logf("%d deploys", deploys)
			// The old generations have nothing that they could wait for. Most of them
			// had a connection: a client may come back only after the next deploy.
			st := s.waitStatus("only the new generation", oneGeneration)
			if d := st.Drained; len(d.Cut) > 0 || d.SoftDrained["http2"]+d.Finished["http2"] < deploys/2 {
				t.Errorf("after %d deploys: %+v", deploys, d)
			}
			checkLedger(t, st)
		})
	}
}

// An HTTP/2 connection on which nothing happens does not hold a generation up.
func TestIdleHTTP2EndsWithItsGeneration(t *testing.T) {
	hour := time.Hour
	s := newService(t, appConfig{Workers: 1, H2C: true, Options: appOptions{IdleGrace: &hour, DrainTimeout: &hour}})
	l := startH2(s, 1)
	l.await(s, 1)
	l.finish(t)
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	st := s.waitStatus("only the new generation", oneGeneration)
	if d := st.Drained; len(d.Cut) > 0 || d.SoftDrained["http2"] != 1 {
		t.Errorf("after a reload: %+v", d)
	}
}

// A listener can keep its connections from moving: they are told to close.
func TestConnectionStaysWhereItMayNotMove(t *testing.T) {
	hour := time.Hour
	s := newService(t, appConfig{Workers: 1, Options: appOptions{IdleGrace: &hour, DrainTimeout: &hour}}, withArgs("NoMove=main"))
	f := dialKept(t, s.addr)
	if v := s.reload(); !v.OK {
		t.Fatalf("reload: %+v", v)
	}
	// The worker may learn of its drain a little later than we do.
	eventually(t, waitTime, "told to close", func() bool {
		if err := f.send("/"); err != nil {
			t.Fatal(err)
		}
		_ = f.c.SetReadDeadline(time.Now().Add(waitTime))
		resp, err := http.ReadResponse(f.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if worker := resp.Header.Get("X-Worker"); err != nil || worker != "1.1" {
			t.Fatalf("after the reload worker %s answers, %v", worker, err)
		}
		return resp.Close
	})
	if b, err := io.ReadAll(f.r); err != nil || len(b) > 0 {
		t.Errorf("after the answer: %q, %v", b, err)
	}
	st := s.waitStatus("only the new generation", oneGeneration)
	if d := st.Drained; len(d.Moved) > 0 || len(d.Cut) > 0 || d.SoftDrained["http1"] != 1 {
		t.Errorf("after a reload: %+v", d)
	}
}
