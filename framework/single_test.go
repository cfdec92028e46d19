package framework

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/listener"
)

func server(f func(context.Context, Listeners) error) func(...Option) error {
	return func(opts ...Option) error { return Serve(f, opts...) }
}

// second is another listener.
func second() Option { return Listen("tcp", "127.0.0.1:0", listener.Name("second")) }

func TestServeMustNotReturnEarly(t *testing.T) {
	broken := errors.New("broken")
	s := launch(t, server(func(context.Context, Listeners) error { return broken }))
	if err := s.wait(); !errors.Is(err, broken) || ExitCode(err) != 1 {
		t.Errorf("error %v", err)
	}
	s = launch(t, server(func(context.Context, Listeners) error { return nil }))
	if err := s.wait(); err == nil || !strings.Contains(err.Error(), "returned before it was told to stop") {
		t.Errorf("error %v", err)
	}
}

func TestServeSaysReady(t *testing.T) {
	speak := make(chan struct{})
	s := launch(t, server(func(ctx context.Context, ls Listeners) error {
		select {
		case <-speak:
			Ready(ctx)
			Ready(ctx) // again does nothing
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	}), second())
	s.addr()
	if log := s.logs.String(); strings.Contains(log, "msg=serving") {
		t.Errorf("ready before it said so:\n%s", log)
	}
	close(speak)
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
}

// accepts answers nothing: it takes connections from the listeners named.
func accepts(names ...string) func(context.Context, Listeners) error {
	return func(ctx context.Context, ls Listeners) error {
		for _, name := range names {
			go func() {
				for {
					c, err := ls.Get(name).Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
		}
		<-ctx.Done()
		return nil
	}
}

func TestReadyOnceAllListenersAccept(t *testing.T) {
	s := launch(t, server(accepts("default", "second")), second())
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); err != nil {
		t.Error(err)
	}

	s = launch(t, server(accepts("default")), second(), ReadyTimeout(200*time.Millisecond))
	if err := s.wait(); !errors.Is(err, ErrNotReady) || ExitCode(err) != 1 {
		t.Errorf("one of two listeners is enough: %v", err)
	}
}

// TestNotReadyLeavesNothing: the caller of Run goes on.
func TestNotReadyLeavesNothing(t *testing.T) {
	var addr string
	stopped := false
	build := func(ctx context.Context) (http.Handler, error) {
		OnStop(ctx, func(context.Context) error { stopped = true; return nil })
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := launch(t, func(opts ...Option) error { return RunFunc(build, opts...) },
		ReadyTimeout(200*time.Millisecond), OnListen(func(_ string, a net.Addr) { addr = a.String() }))
	if err := s.wait(); !errors.Is(err, ErrNotReady) {
		t.Errorf("error %v", err)
	}
	if !stopped {
		t.Error("OnStop was not called")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
}

func TestBuildFails(t *testing.T) {
	broken := errors.New("no database")
	builds := func(h http.Handler, err error) func(...Option) error {
		return func(opts ...Option) error {
			return RunFunc(func(context.Context) (http.Handler, error) { return h, err }, opts...)
		}
	}
	s := launch(t, builds(nil, broken), second())
	if err := s.wait(); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	for _, h := range []http.Handler{nil, http.HandlerFunc(nil)} {
		s = launch(t, builds(h, nil))
		if err := s.wait(); err == nil || !strings.Contains(err.Error(), "neither a handler nor an error") {
			t.Errorf("%T: error %v", h, err)
		}
	}
}

// TestBoundAddressIsGivenBackWhenAnotherFails also finds descriptors that leak,
// by TestMain.
func TestBoundAddressIsGivenBackWhenAnotherFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := launch(t, handler(nil), Listen("tcp", taken.Addr().String()))
	if err := s.wait(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v", err)
	}
}

func TestListenersByName(t *testing.T) {
	var got []string
	s := launch(t, server(func(ctx context.Context, ls Listeners) error {
		for name, ln := range ls.All() {
			got = append(got, name)
			if ln != ls.Get(name) {
				t.Errorf("Get(%q) is not what All says", name)
			}
		}
		for name := range ls.All() { // a loop may end early
			got = append(got, name)
			break
		}
		if ls.Get("unknown") != nil {
			t.Error("there is an unknown listener")
		}
		Ready(ctx)
		<-ctx.Done()
		return nil
	}), Listen("tcp", "127.0.0.1:0", listener.Name("z")), Listen("tcp", "127.0.0.1:0", listener.Name("a")))
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	if want := []string{"default", "z", "a", "default"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if (Listeners{}).Get("default") != nil {
		t.Error("no listeners have one")
	}
}

// TestServeEndsWithItsConnections: Serve's own wait counts, and so do the
// connections that it has let go of.
func TestServeEndsWithItsConnections(t *testing.T) {
	conns := make(chan net.Conn, 1)
	s := launch(t, server(func(ctx context.Context, ls Listeners) error {
		c, err := ls.Get("default").Accept()
		if err != nil {
			return err
		}
		conns <- c
		<-ctx.Done()
		return nil
	}))
	dial(t, s.addr())
	c := <-conns
	s.logs.await(t, "msg=serving")
	s.stop()
	select {
	case err := <-s.done:
		t.Fatalf("Run returned before the connection ended: %v", err)
	case <-time.After(100 * time.Millisecond): // a moment in which it could
	}
	c.Close()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	if log := s.logs.String(); !strings.Contains(log, "level=INFO msg=drained cut=0") {
		t.Errorf("log:\n%s", log)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
}

// TestStopServesWhatTheKernelHasQueued: clients that have connected before the
// stop get their answer, although nobody had accepted them yet.
func TestStopServesWhatTheKernelHasQueued(t *testing.T) {
	first, gate := make(chan struct{}), make(chan struct{})
	s := launch(t, server(func(ctx context.Context, ls Listeners) error {
		for n := 0; ; n++ {
			c, err := ls.Get("default").Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) || ctx.Err() == nil {
					t.Errorf("Accept: %v, context %v", err, ctx.Err())
				}
				return nil
			}
			if n == 0 {
				close(first)
				<-gate
			}
			io.WriteString(c, "served")
			c.Close()
		}
	}))
	addr := s.addr()
	clients := []*client{dial(t, addr)}
	await(t, first, "the first connection")
	s.logs.await(t, "msg=serving")
	for range 20 {
		clients = append(clients, dial(t, addr))
	}
	s.stop()
	s.logs.await(t, "msg=stopping")
	close(gate)
	for i, c := range clients {
		if b, err := io.ReadAll(c.r); string(b) != "served" {
			t.Errorf("client %d: %q, %v", i, b, err)
		}
	}
	if err := s.wait(); err != nil {
		t.Error(err)
	}
}

func TestRoleInOneProcess(t *testing.T) {
	type self struct {
		Role             string
		ID               string
		Slot, Generation int
		Attrs            []any
	}
	got := make(chan self, 1)
	s := launch(t, func(opts ...Option) error {
		return RunFunc(func(context.Context) (http.Handler, error) {
			got <- self{Role().String(), WorkerID(), Slot(), Generation(), LogAttrs()}
			return http.NotFoundHandler(), nil
		}, opts...)
	})
	s.logs.await(t, "msg=serving")
	want := self{"single", "1.1", 1, 1, []any{"role", "single", "pid", os.Getpid(), "worker", "1.1", "generation", 1}}
	if diff := cmp.Diff(want, <-got); diff != "" {
		t.Error(diff)
	}
}

func TestRoleBeforeRun(t *testing.T) {
	was := role.Load()
	defer role.Store(was)
	role.Store(int32(RoleMaster))
	if Role() != RoleMaster || WorkerID() != "" || Slot() != 0 || Generation() != 0 {
		t.Errorf("%v %q %d %d", Role(), WorkerID(), Slot(), Generation())
	}
	if diff := cmp.Diff([]any{"role", "master", "pid", os.Getpid()}, LogAttrs()); diff != "" {
		t.Error(diff)
	}
	if s := RoleWorker.String(); s != "worker" {
		t.Error(s)
	}
}

func TestRunInsideATestBinary(t *testing.T) {
	for name, err := range map[string]error{
		"Run":     Run(nil, Listen("tcp", "127.0.0.1:0")),
		"RunFunc": RunFunc(func(context.Context) (http.Handler, error) { panic("called") }, Listen("tcp", "127.0.0.1:0")),
		"Serve":   Serve(func(context.Context, Listeners) error { panic("called") }, Listen("tcp", "127.0.0.1:0")),
	} {
		if !errors.Is(err, ErrInTest) || !strings.Contains(err.Error(), "SingleProcess") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is wrong with the options comes first.
	if err := Run(nil, Workers(-1)); !errors.Is(err, ErrConfig) || errors.Is(err, ErrInTest) {
		t.Error(err)
	}
	if err := errors.Join(RunFunc(nil), Serve(nil)); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{ErrConfig, 78},
		{fmt.Errorf("app: %w", ErrConfig), 78},
		{ErrAlreadyRunning, 75},
		{fmt.Errorf("%w: %w", ErrAlreadyRunning, os.ErrExist), 75},
		{ErrNotReady, 1},
		{ErrInTest, 1},
		{errors.New("any other"), 1},
	} {
		if code := ExitCode(tt.err); code != tt.code {
			t.Errorf("%v: %d, want %d", tt.err, code, tt.code)
		}
	}
}

func TestModeOfTheEnvironment(t *testing.T) {
	t.Setenv("BATON_MODE", "single")
	ctx, stop := context.WithCancel(t.Context())
	logs := newLogBuffer()
	done := make(chan error, 1)
	go func() {
		done <- Run(http.NotFoundHandler(), StopOn(ctx), Logger(logs.logger()), Listen("tcp", "127.0.0.1:0"))
	}()
	logs.await(t, "msg=serving")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if log := logs.String(); !strings.HasPrefix(log, `level=INFO msg="mode=single from BATON_MODE, default master"`+"\n") {
		t.Errorf("log:\n%s", log)
	}
}

func TestAddressesAreLogged(t *testing.T) {
	s := launch(t, handler(http.NotFound), second())
	one, two := s.addr(), s.addr()
	s.logs.await(t, "msg=serving")
	for _, line := range []string{"msg=listening listener=default address=" + one, "msg=listening listener=second address=" + two} {
		if !strings.Contains(s.logs.String(), line) {
			t.Errorf("%q was not logged:\n%s", line, s.logs)
		}
	}
}

func TestOnStop(t *testing.T) {
	broken := errors.New("flush failed")
	var order []string
	var left time.Duration
	build := func(ctx context.Context) (http.Handler, error) {
		for _, name := range []string{"first", "second", "third"} {
			OnStop(ctx, func(stop context.Context) error {
				order = append(order, name)
				if ctx.Err() == nil {
					t.Error("called before build's context has ended")
				}
				if d, ok := stop.Deadline(); ok {
					left = time.Until(d)
				}
				if name == "second" {
					return broken
				}
				return nil
			})
		}
		return http.NotFoundHandler(), nil
	}
	s := launch(t, func(opts ...Option) error { return RunFunc(build, opts...) }, KillTimeout(time.Minute))
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if want := []string{"third", "second", "first"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if left <= 0 || left > time.Minute {
		t.Errorf("%v left, want KillTimeout", left)
	}
}

func TestOnStopIsBounded(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	build := func(ctx context.Context) (http.Handler, error) {
		OnStop(ctx, func(context.Context) error { <-hold; return nil })
		return http.NotFoundHandler(), nil
	}
	s := launch(t, func(opts ...Option) error { return RunFunc(build, opts...) }, KillTimeout(100*time.Millisecond))
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); err == nil || !strings.Contains(err.Error(), "OnStop functions did not return within 100ms") {
		t.Errorf("error %v", err)
	}
}

func TestContextsThatAreNotOurs(t *testing.T) {
	Ready(context.Background()) // does nothing
	if Draining(context.Background()) != nil {
		t.Error("a foreign context drains")
	}
	defer func() {
		if r := fmt.Sprint(recover()); !strings.HasPrefix(r, "framework.OnStop: ") {
			t.Errorf("panic %q", r)
		}
	}()
	OnStop(context.Background(), func(context.Context) error { return nil })
}
