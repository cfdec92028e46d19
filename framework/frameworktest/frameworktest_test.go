package frameworktest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/framework/frameworktest"
	"github.com/baton-go/baton/internal/testcert"
	"github.com/baton-go/baton/listener"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hello(context.Context) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s", framework.WorkerID())
	}), nil
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestStartServes(t *testing.T) {
	s := frameworktest.Start(t, hello)
	if got := get(t, s.Client(), s.URL); got != "hello from 1.1" {
		t.Errorf("got %q", got)
	}
	if s.Addr("other") != nil {
		t.Error("there is an unknown listener")
	}
}

func TestServersAreIndependent(t *testing.T) {
	one, two := frameworktest.Start(t, hello), frameworktest.Start(t, hello)
	if one.URL == two.URL {
		t.Fatal("both have the same address")
	}
	if err := one.Drain(); err != nil {
		t.Error(err)
	}
	get(t, two.Client(), two.URL)
}

func TestListenAdds(t *testing.T) {
	s := frameworktest.Start(t, hello, framework.Listen("tcp", "127.0.0.1:0", listener.Name("admin")),
		framework.Handle("admin", http.NotFoundHandler()))
	if got := get(t, s.Client(), "http://"+s.Addr("admin").String()); !strings.HasPrefix(got, "404") {
		t.Errorf("admin says %q", got)
	}
	if got := get(t, s.Client(), s.URL); got != "hello from 1.1" {
		t.Errorf("default says %q", got)
	}
}

func TestTLSIsTrusted(t *testing.T) {
	cert := testcert.New(t, 1)
	certFile, keyFile := cert.Write(t.TempDir())
	named := testcert.New(t, 2, "example.com")
	for name, opts := range map[string][]framework.Option{
		"files":         {framework.TLS(certFile, keyFile)},
		"config":        {framework.TLSConfig(&tls.Config{Certificates: []tls.Certificate{cert.TLS()}})},
		"of a name":     {framework.TLSConfig(&tls.Config{Certificates: []tls.Certificate{named.TLS()}}, "default")},
		"beside others": {framework.Listen("tcp", "127.0.0.1:0"), framework.TLS(certFile, keyFile, "default")},
	} {
		t.Run(name, func(t *testing.T) {
			s := frameworktest.Start(t, hello, opts...)
			if got := get(t, s.Client(), s.URL); got != "hello from 1.1" || !strings.HasPrefix(s.URL, "https://") {
				t.Errorf("%s says %q", s.URL, got)
			}
		})
	}
	other := frameworktest.Start(t, hello,
		framework.Listen("tcp", "127.0.0.1:0", listener.Name("secure")), framework.TLS(certFile, keyFile, "secure"))
	if got := get(t, other.Client(), other.URL); got != "hello from 1.1" || !strings.HasPrefix(other.URL, "http://") {
		t.Errorf("%s says %q", other.URL, got)
	}
}

// TestDrainFinishesRequests: a request in flight is answered, then OnStop.
func TestDrainFinishesRequests(t *testing.T) {
	broken := errors.New("flush failed")
	entered := make(chan struct{})
	s := frameworktest.Start(t, func(ctx context.Context) (http.Handler, error) {
		framework.OnStop(ctx, func(context.Context) error { return broken })
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-framework.Draining(r.Context())
			io.WriteString(w, "finished")
		}), nil
	})
	answer := make(chan string)
	go func() { answer <- get(t, s.Client(), s.URL) }()
	<-entered
	s.BeginDrain()
	if got := <-answer; got != "finished" {
		t.Errorf("got %q", got)
	}
	for range 2 {
		if err := s.Drain(); !errors.Is(err, broken) {
			t.Errorf("Drain: %v", err)
		}
	}
	if _, err := s.Client().Get(s.URL); err == nil {
		t.Error("it still listens")
	}
}

// TestDrainDoesNotWaitForItsClient: its idle connections are closed.
func TestDrainDoesNotWaitForItsClient(t *testing.T) {
	s := frameworktest.Start(t, hello, framework.IdleGrace(time.Hour), framework.StopTimeout(2*time.Hour))
	get(t, s.Client(), s.URL)
	if err := s.Drain(); err != nil {
		t.Error(err)
	}
}

// recorder is a testing.TB of which Start is to end the test.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestStartThatFailsEndsTheTest(t *testing.T) {
	for want, build := range map[string]func(context.Context) (http.Handler, error){
		"no database":                        func(context.Context) (http.Handler, error) { return nil, errors.New("no database") },
		"neither a handler nor an error":     func(context.Context) (http.Handler, error) { return nil, nil },
		"RunFunc(nil): expected a function":  nil,
		"did not start: baton: not ready wi": func(ctx context.Context) (http.Handler, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			frameworktest.Start(r, build, framework.ReadyTimeout(50*time.Millisecond))
			r.fatal = "Start returned"
		}()
		<-done
		if !strings.Contains(r.fatal, want) {
			t.Errorf("got %q, want %q", r.fatal, want)
		}
	}
}

// t stands for the *testing.T of a test.
type exampleT struct{ testing.TB }

func (exampleT) Helper()           {}
func (exampleT) Cleanup(func())    {}
func (exampleT) Output() io.Writer { return io.Discard }
func (exampleT) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format, args...)
	os.Exit(1)
}

func Example() {
	var t exampleT // the *testing.T of a test

	build := func(context.Context) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "hello from worker", framework.WorkerID())
		}), nil
	}
	s := frameworktest.Start(t, build)
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Print(string(body))
	fmt.Println("drained:", s.Drain())
	// Output:
	// hello from worker 1.1
	// drained: <nil>
}
