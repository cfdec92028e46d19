package framework

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
	"github.com/baton-go/baton/workers/dispatch"
)

// problemsOf is the lines of an error that resolve returned, less the first.
func problemsOf(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("%v: is not ErrConfig", err)
	}
	if code := ExitCode(err); code != 78 {
		t.Errorf("exit code %d, want 78", code)
	}
	lines := strings.Split(err.Error(), "\n")
	if lines[0] != "baton: invalid configuration:" {
		t.Errorf("first line %q", lines[0])
	}
	return lines[1:]
}

func mustResolve(t *testing.T, env environment, opts ...Option) *options {
	t.Helper()
	o, err := resolve(opts, env)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestDefaults(t *testing.T) {
	o := mustResolve(t, nil)
	want := settings{
		generationSettings: generationSettings{
			DrainTimeout: 30 * time.Second, StopTimeout: 25 * time.Second,
			ReadyTimeout: 30 * time.Second, KillTimeout: 5 * time.Second,
			HangTimeout: 30 * time.Second, BakeTime: 10 * time.Second, IdleGrace: 5 * time.Second, DrainSpread: 5 * time.Second, MaxDraining: 8,
			Dispatch: "round-robin", Accept: "master", OrphanTimeout: orphansIfSupervised,
		},
		masterSettings: masterSettings{
			Listeners: []listener.Spec{{Name: "default", Network: "tcp", Address: ":8080"}},
		},
	}
	if diff := cmp.Diff(want, o.settings, cmp.AllowUnexported(settings{})); diff != "" {
		t.Error(diff)
	}
	if o.logger == nil || o.single || len(o.overrides) > 0 || o.env == nil {
		t.Errorf("logger %v, single %v, overrides %q, env %v", o.logger, o.single, o.overrides, o.env)
	}
}

func TestCodeSetsEveryOption(t *testing.T) {
	ctx, h, calls := t.Context(), http.NewServeMux(), 0
	logger := slog.New(slog.DiscardHandler)
	adopt := func(net.Conn, []byte) { calls++ }
	o := mustResolve(t, nil,
		Dispatch(dispatch.Hash()), Dispatch(dispatch.Weighted(3, 1)), Accept("kernel"), Workers(3), DrainTimeout(2*time.Hour), StopTimeout(9*time.Second), StopDelay(time.Second),
		ReadyTimeout(time.Minute), KillTimeout(0), HangTimeout(0), GiveUpAfter(time.Hour),
		BakeTime(time.Minute), OrphanTimeout(0), Orphans(true), IdleGrace(0), DrainSpread(time.Minute), MaxDraining(1), Rolling(true), Preempt(true), PIDFile("/run/a.pid"), RuntimeDir("/run/a/"), Logger(logger),
		Listen("tcp", ":0"), Listen("unix", "/run/a.sock", listener.Name("admin"), listener.Mode(0o660), listener.Accept("workers")),
		Handle("admin", h), NoMove("admin"), NoMove("tcp::0"), OnAdopt("tcp::0", adopt), OnAdopt("admin", adopt), SingleProcess(), StopOn(ctx), StopOn(ctx),
		HTTPServer(func(*http.Server) { calls++ }), OnEvent(func(workers.Event) { calls++ }),
		OnListen(func(string, net.Addr) { calls++ }),
	)
	want := settings{
		generationSettings: generationSettings{
			Workers: 3, DrainTimeout: 2 * time.Hour, StopTimeout: 9 * time.Second, StopDelay: time.Second,
			ReadyTimeout: time.Minute, GiveUpAfter: time.Hour, DrainSpread: time.Minute, BakeTime: time.Minute, MaxDraining: 1, Rolling: true, Preempt: true, Adopts: []string{"admin", "tcp::0"},
			Dispatch: "weighted:3,1", Accept: "kernel", Accepts: map[string]listener.AcceptMode{"admin": "workers"},
		},
		masterSettings: masterSettings{
			Listeners: []listener.Spec{
				{Name: "tcp::0", Network: "tcp", Address: ":0"},
				{Name: "admin", Network: "unix", Address: "/run/a.sock", Mode: 0o660},
			},
			PIDFile: "/run/a.pid", RuntimeDir: "/run/a", Orphans: true,
		},
	}
	if diff := cmp.Diff(want, o.settings, cmp.AllowUnexported(settings{})); diff != "" {
		t.Error(diff)
	}
	if o.logger != logger || !o.single || o.handlers["admin"] != h || len(o.noMove) != 2 || len(o.stopOn) != 2 {
		t.Errorf("logger, single, handlers, noMove or stopOn not taken: %+v", o)
	}
	o.httpServer[0](nil)
	o.onEvent[0](nil)
	o.onListen[0]("", nil)
	o.adopters["admin"](nil, nil)
	if calls != 4 {
		t.Errorf("%d of 4 functions kept", calls)
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	const whole, dur = "expected a whole number from ", `expected a duration such as "30s", `
	var nilMux *http.ServeMux
	var nilContext context.Context
	ok, adopt := http.NotFoundHandler(), func(net.Conn, []byte) {}
	for _, tt := range []struct {
		opt  Option
		want string
	}{
		{nil, "option 1 of 1 is nil: expected an Option"},
		{Workers(-1), "Workers(-1): " + whole + "0 to 1024"},
		{Workers(1025), "Workers(1025): " + whole + "0 to 1024"},
		{Accept(""), "Accept(): expected master, workers, kernel or kernel!"},
		{Accept("all"), "Accept(all): expected master, workers, kernel or kernel!"},
		{MaxDraining(0), "MaxDraining(0): " + whole + "1 to 256"},
		{MaxDraining(257), "MaxDraining(257): " + whole + "1 to 256"},
		{DrainTimeout(-1), "DrainTimeout(-1ns): " + dur + "from 0s up to 720h"},
		{DrainTimeout(721 * time.Hour), "DrainTimeout(721h0m0s): " + dur + "from 0s up to 720h"},
		{StopTimeout(-1), "StopTimeout(-1ns): " + dur + "from 0s up to 720h"},
		{StopDelay(-1), "StopDelay(-1ns): " + dur + "from 0s up to 720h"},
		{ReadyTimeout(0), "ReadyTimeout(0s): " + dur + "above 0s, up to 720h"},
		{KillTimeout(-1), "KillTimeout(-1ns): " + dur + "from 0s up to 720h"},
		{HangTimeout(-1), "HangTimeout(-1ns): " + dur + "from 0s up to 720h"},
		{OrphanTimeout(-1), "OrphanTimeout(-1ns): " + dur + "from 0s up to 720h"},
		{GiveUpAfter(-1), "GiveUpAfter(-1ns): " + dur + "from 0s up to 720h"},
		{IdleGrace(-1), "IdleGrace(-1ns): " + dur + "from 0s up to 720h"},
		{DrainSpread(-1), "DrainSpread(-1ns): " + dur + "from 0s up to 720h"},
		{StopDelay(25 * time.Second), "StopDelay(25s) with StopTimeout(25s, the default): expected StopDelay to be shorter than StopTimeout, which includes it"},
		{User("no-such-user"), `User("no-such-user"): expected the name or number of an existing user: user: unknown user no-such-user`},
		{User("a:b"), `User("a:b"): expected the name or number of a user`},
		{PIDFile("a\x00b"), `PIDFile("a\x00b"): expected a path without NUL bytes, absolute if the working directory is unknown`},
		{RuntimeDir("\x00"), `RuntimeDir("\x00"): expected a path without NUL bytes, absolute if the working directory is unknown`},
		{EnvFile("\x00"), `EnvFile("\x00"): expected a path without NUL bytes, absolute if the working directory is unknown`},
		{EnvFile("/does/not/exist"), `EnvFile("/does/not/exist"): stat: no such file or directory`},
		{Logger(nil), "Logger(nil): expected a logger, such as slog.New(slog.DiscardHandler) for silence"},
		{HTTPServer(nil), "HTTPServer(nil): expected a function"},
		{OnEvent(nil), "OnEvent(nil): expected a function"},
		{OnListen(nil), "OnListen(nil): expected a function"},
		{StopOn(nilContext), "StopOn(nil): expected a context"},
		{Handle("default", nil), `Handle("default", nil): expected a handler`},
		{Handle("default", http.HandlerFunc(nil)), `Handle("default", nil): expected a handler`},
		{Handle("default", nilMux), `Handle("default", nil): expected a handler`},
		{NoMove(), "NoMove(): expected the name of a listener"},
		{NoMove("default", "api"), `NoMove("api"): no listener has that name: expected one of ["default"]`},
		{Handle("api", ok), `Handle("api"): no listener has that name: expected one of ["default"]`},
		{OnAdopt("default", nil), `OnAdopt("default", nil): expected a function`},
		{OnAdopt("api", adopt), `OnAdopt("api"): no listener has that name: expected one of ["default"]`},
		{both(OnAdopt("default", adopt), OnAdopt("default", adopt)), `OnAdopt("default"): given twice, expected one function for a listener`},
		{Listen("tcp", ":0", nil), `Listen("tcp", ":0"): option 1 is nil: expected a listener.Option`},
		{Listen("udp", ":0"), `listener "udp::0": network "udp": expected tcp, tcp4, tcp6 or unix`},
		{both(Handle("default", ok), Handle("default", ok)), `Handle("default"): given twice, expected one handler for a listener`},
	} {
		t.Run(tt.want, func(t *testing.T) {
			_, err := resolve([]Option{tt.opt}, nil)
			if diff := cmp.Diff([]string{tt.want}, problemsOf(t, err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func both(a, b Option) Option {
	return func(o *options) { a(o); b(o) }
}

func TestAllProblemsAreReportedTogether(t *testing.T) {
	_, err := resolve([]Option{
		Workers(-1), StopDelay(time.Minute), Handle("api", http.NotFoundHandler()), nil,
		Listen("tcp", "nowhere", listener.Name("a")), Listen("unix", "", listener.Name("a")),
	}, environment{
		"BATON_WORKERS": "many", "BATON_STOP_TIMEOUT": "7s", "BATON_MODE": "both", "GOMEMLIMIT": "lots",
		"BATON_ENV_FILE": "/does/not/exist", "PORT": "not looked at: there are listeners",
	})
	want := []string{
		`Workers(-1): expected a whole number from 0 to 1024`,
		`option 4 of 6 is nil: expected an Option`,
		`BATON_ENV_FILE="/does/not/exist": stat: no such file or directory`,
		`BATON_WORKERS="many": expected a whole number from 0 to 1024`,
		`BATON_MODE="both": expected single or master`,
		`StopDelay(1m0s) with BATON_STOP_TIMEOUT="7s": expected StopDelay to be shorter than StopTimeout, which includes it`,
		`listener "a": address "nowhere": expected host:port`,
		`listener "a": address "": expected the path of a socket`,
		`listener "a": name "a": expected a name of its own, another listener has it`,
		`Handle("api"): no listener has that name: expected one of ["a" "a"]`,
		`GOMEMLIMIT="lots": expected bytes as in "512MiB", with B, KiB, MiB, GiB, TiB or no unit, or "off"`,
	}
	if diff := cmp.Diff(want, problemsOf(t, err)); diff != "" {
		t.Error(diff)
	}
}

func TestPortMovesTheDefaultListenerOnly(t *testing.T) {
	for _, tt := range []struct{ port, want string }{
		{"", ":8080"}, {"0", ":0"}, {"9000", ":9000"}, {"65535", ":65535"}, {"080", ":80"},
	} {
		o := mustResolve(t, environment{"PORT": tt.port})
		want := []listener.Spec{{Name: "default", Network: "tcp", Address: tt.want}}
		if diff := cmp.Diff(want, o.Listeners); diff != "" {
			t.Errorf("PORT=%q: %s", tt.port, diff)
		}
	}
	o := mustResolve(t, environment{"PORT": "9000"}, Listen("tcp", ":7"))
	if len(o.Listeners) != 1 || o.Listeners[0].Address != ":7" {
		t.Errorf("Listen did not win over PORT: %v", o.Listeners)
	}
	for _, port := range []string{"65536", "-1", "+80", "http", "80 ", "8e3"} {
		_, err := resolve(nil, environment{"PORT": port})
		want := []string{fmt.Sprintf("PORT=%q: expected a port number from 0 to 65535", port)}
		if diff := cmp.Diff(want, problemsOf(t, err)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPathsAreAbsolute(t *testing.T) {
	o := mustResolve(t, environment{"BATON_RUNTIME_DIR": "run/./x"}, PIDFile("a.pid"))
	if want := filepath.Join(workingDir, "a.pid"); o.PIDFile != want {
		t.Errorf("PIDFile %q, want %q", o.PIDFile, want)
	}
	if want := filepath.Join(workingDir, "run", "x"); o.RuntimeDir != want {
		t.Errorf("RuntimeDir %q, want %q", o.RuntimeDir, want)
	}

	defer func(was string) { workingDir = was }(workingDir)
	workingDir = ""
	_, err := resolve([]Option{PIDFile("a.pid"), RuntimeDir("/run/x")}, nil)
	if p := problemsOf(t, err); len(p) != 1 || !strings.HasPrefix(p[0], `PIDFile("a.pid"): expected`) {
		t.Errorf("without a working directory: %q", p)
	}
}

func TestSettingsTravel(t *testing.T) {
	o := mustResolve(t, nil, Workers(3), Listen("unix", "/a", listener.Mode(fs.FileMode(0o600))), PIDFile("/p"))
	b, err := json.Marshal(o.settings)
	if err != nil {
		t.Fatal(err)
	}
	var got settings
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o.settings, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("%s: %s", b, diff)
	}
}

func TestDiffersNamesWhatNeedsAnotherMaster(t *testing.T) {
	a := listener.NewSpec("tcp", ":1")
	b := listener.NewSpec("tcp", ":2")
	base := masterSettings{Listeners: []listener.Spec{a, b}, RuntimeDir: "/r", PIDFile: "/p", User: "u", EnvFile: "/e"}
	for _, tt := range []struct {
		change func(*masterSettings)
		want   []string
	}{
		{func(m *masterSettings) { m.Listeners = []listener.Spec{a, b} }, nil},
		{func(m *masterSettings) { m.Listeners = []listener.Spec{a} }, []string{"Listeners"}},
		{func(m *masterSettings) { m.Listeners = []listener.Spec{b, a} }, []string{"Listeners"}},
		{func(m *masterSettings) { m.RuntimeDir = "" }, []string{"RuntimeDir"}},
		{func(m *masterSettings) { m.PIDFile = "" }, []string{"PIDFile"}},
		{func(m *masterSettings) { m.User = "v" }, []string{"User"}},
		{func(m *masterSettings) { m.Orphans = true }, []string{"Orphans"}},
		{func(m *masterSettings) { m.EnvFile = "" }, []string{"EnvFile"}},
		{func(m *masterSettings) { *m = masterSettings{} }, []string{"Listeners", "RuntimeDir", "PIDFile", "User", "EnvFile"}},
	} {
		other := base
		tt.change(&other)
		if diff := cmp.Diff(tt.want, base.differs(other)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{ErrConfig, 78},
		{fmt.Errorf("x: %w", ErrConfig), 78},
		{fmt.Errorf("x: %w", ErrAlreadyRunning), 75},
		{fmt.Errorf("x: %w", ErrIncompatible), 75},
		{ErrNotReady, 1},
		{ErrInTest, 1},
		{errors.New("x"), 1},
	} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("ExitCode(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
	for _, err := range []error{ErrConfig, ErrAlreadyRunning, ErrIncompatible, ErrNotReady, ErrInTest} {
		if !strings.HasPrefix(err.Error(), "baton: ") {
			t.Errorf("%q has no prefix", err)
		}
	}
}
