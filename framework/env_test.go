package framework

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestVariablesWinOverCode(t *testing.T) {
	o := mustResolve(t, environment{
		"BATON_WORKERS": "8", "BATON_DRAIN_TIMEOUT": "1h", "BATON_STOP_TIMEOUT": "50s",
		"BATON_STOP_DELAY": "5s", "BATON_READY_TIMEOUT": "1m", "BATON_KILL_TIMEOUT": "6s",
		"BATON_HANG_TIMEOUT": "0", "BATON_GIVE_UP_AFTER": "7m", "BATON_IDLE_GRACE": "8s", "BATON_DRAIN_SPREAD": "3s",
		"BATON_MAX_DRAINING": "2", "BATON_PID_FILE": "/a.pid", "BATON_RUNTIME_DIR": "/run/a",
		"BATON_MODE": "single", "BATON_BAKE_TIME": "9s", "BATON_ORPHAN_TIMEOUT": "11s", "BATON_ORPHANS": "true", "BATON_ROLLING": "1", "BATON_PREEMPT": "true", "BATON_DISPATCH": "hash", "BATON_ACCEPT": "kernel!", "BATON_COLOUR": "unknown ones are ignored",
	}, Workers(2), RuntimeDir("/run/b"))
	want := generationSettings{
		Workers: 8, DrainTimeout: time.Hour, StopTimeout: 50 * time.Second, StopDelay: 5 * time.Second,
		ReadyTimeout: time.Minute, KillTimeout: 6 * time.Second, HangTimeout: 0,
		GiveUpAfter: 7 * time.Minute, BakeTime: 9 * time.Second, IdleGrace: 8 * time.Second, DrainSpread: 3 * time.Second, MaxDraining: 2,
		Dispatch: "hash", Accept: "kernel!", OrphanTimeout: 11 * time.Second, Rolling: true, Preempt: true,
	}
	if diff := cmp.Diff(want, o.generationSettings); diff != "" {
		t.Error(diff)
	}
	if o.PIDFile != "/a.pid" || o.RuntimeDir != "/run/a" || !o.single {
		t.Errorf("PIDFile %q, RuntimeDir %q, single %v", o.PIDFile, o.RuntimeDir, o.single)
	}
	lines := []string{
		`workers=8 from BATON_WORKERS, code says 2`,
		`drain_timeout=1h0m0s from BATON_DRAIN_TIMEOUT, default 30s`,
		`stop_timeout=50s from BATON_STOP_TIMEOUT, default 25s`,
		`stop_delay=5s from BATON_STOP_DELAY, default 0s`,
		`ready_timeout=1m0s from BATON_READY_TIMEOUT, default 30s`,
		`kill_timeout=6s from BATON_KILL_TIMEOUT, default 5s`,
		`hang_timeout=0s from BATON_HANG_TIMEOUT, default 30s`,
		`give_up_after=7m0s from BATON_GIVE_UP_AFTER, default 0s`,
		`bake_time=9s from BATON_BAKE_TIME, default 10s`,
		`idle_grace=8s from BATON_IDLE_GRACE, default 5s`,
		`drain_spread=3s from BATON_DRAIN_SPREAD, default 5s`,
		`max_draining=2 from BATON_MAX_DRAINING, default 8`,
		`dispatch=hash from BATON_DISPATCH, default round-robin`,
		`accept=kernel! from BATON_ACCEPT, default master`,
		`orphan_timeout=11s from BATON_ORPHAN_TIMEOUT, default 5m0s where supervised`,
		`orphans=true from BATON_ORPHANS, default false`,
		`rolling=true from BATON_ROLLING, default false`,
		`preempt=true from BATON_PREEMPT, default false`,
		`pid_file="/a.pid" from BATON_PID_FILE, default ""`,
		`runtime_dir="/run/a" from BATON_RUNTIME_DIR, code says "/run/b"`,
		`mode=single from BATON_MODE, default master`,
	}
	if diff := cmp.Diff(lines, o.overrides); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyRealOverridesAreLogged(t *testing.T) {
	o := mustResolve(t, environment{
		"BATON_WORKERS": "2", "BATON_DRAIN_TIMEOUT": "30s", "BATON_IDLE_GRACE": "", "BATON_MODE": "master",
	}, Workers(2), SingleProcess(), IdleGrace(time.Second))
	if diff := cmp.Diff([]string{"mode=master from BATON_MODE, code says single"}, o.overrides); diff != "" {
		t.Error(diff)
	}
	if o.single || o.IdleGrace != time.Second {
		t.Errorf("single %v, IdleGrace %v: BATON_MODE=master wins, an empty variable does not", o.single, o.IdleGrace)
	}
}

func TestBadVariablesAreNamed(t *testing.T) {
	const (
		workers  = "a whole number from 0 to 1024"
		draining = "a whole number from 1 to 256"
		duration = `a duration such as "30s", from 0s up to 720h`
		ready    = `a duration such as "30s", above 0s, up to 720h`
		memory   = `bytes as in "512MiB", with B, KiB, MiB, GiB, TiB or no unit, or "off"`
	)
	for _, tt := range []struct{ name, value, expected string }{
		{"BATON_WORKERS", "many", workers},
		{"BATON_WORKERS", "-1", workers},
		{"BATON_WORKERS", "2.5", workers},
		{"BATON_WORKERS", " 2", workers},
		{"BATON_WORKERS", "99999999999999999999", workers},
		{"BATON_MAX_DRAINING", "0", draining},
		{"BATON_DRAIN_TIMEOUT", "30", duration},
		{"BATON_DRAIN_TIMEOUT", "-1s", duration},
		{"BATON_DRAIN_TIMEOUT", "1d", duration},
		{"BATON_DRAIN_TIMEOUT", "99999999h", duration},
		{"BATON_STOP_TIMEOUT", "soon", duration},
		{"BATON_STOP_DELAY", "5", duration},
		{"BATON_READY_TIMEOUT", "0s", ready},
		{"BATON_READY_TIMEOUT", "30", ready},
		{"BATON_KILL_TIMEOUT", "x", duration},
		{"BATON_HANG_TIMEOUT", "x", duration},
		{"BATON_GIVE_UP_AFTER", "never", duration},
		{"BATON_IDLE_GRACE", "721h", duration},
		{"BATON_DRAIN_SPREAD", "-1s", duration},
		{"BATON_ACCEPT", "Workers", "master, workers, kernel or kernel!"},
		{"BATON_MODE", "Single", "single or master"},
		{"BATON_DISPATCH", "fastest", "round-robin, weighted, least-connections or hash"},
		{"BATON_DISPATCH", "Hash", "round-robin, weighted, least-connections or hash"},
		{"BATON_DISPATCH", "hash:port", "hash without parameters"},
		{"BATON_DISPATCH", "round-robin:", "round-robin without parameters"},
		{"BATON_DISPATCH", "weighted:", "weighted:W,W,... with weights from 0 to 1000"},
		{"BATON_DISPATCH", "weighted:1,1001", "weighted:W,W,... with weights from 0 to 1000"},
		{"GOMEMLIMIT", "512MB", memory},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			_, err := resolve(nil, environment{tt.name: tt.value})
			want := []string{fmt.Sprintf("%s=%q: expected %s", tt.name, tt.value, tt.expected)}
			if diff := cmp.Diff(want, problemsOf(t, err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEnvironmentSnapshot(t *testing.T) {
	e := newEnvironment([]string{"A=1", "B=x=y", "A=2", "EMPTY=", "junk", "", "=C:=dir"})
	want := environment{"A": "1", "B": "x=y", "EMPTY": "", "=C:": "dir"}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if _, ok := e.lookup("EMPTY"); ok {
		t.Error("an empty variable counts as set")
	}
	if diff := cmp.Diff([]string{"=C:=dir", "A=1", "B=x=y", "EMPTY="}, e.list()); diff != "" {
		t.Error(diff)
	}
	t.Setenv("BATON_TEST_SNAPSHOT", "here")
	if v, ok := currentEnvironment().lookup("BATON_TEST_SNAPSHOT"); !ok || v != "here" {
		t.Errorf("current environment has %q", v)
	}
}

func writeEnvFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEnvFileWinsOverTheInheritedEnvironment(t *testing.T) {
	path := writeEnvFile(t, strings.Join([]string{
		"# comment", "A=file", "export B='$A'", `C="${A}-${HOME}"`, "BATON_WORKERS=6", "EMPTY=", "D: yaml",
	}, "\r\n"))
	base := environment{"A": "inherited", "HOME": "/root", "KEPT": "yes", "BATON_WORKERS": "4"}
	env, err := loadEnvFile(path, base)
	if err != nil {
		t.Fatal(err)
	}
	want := environment{
		"A": "file", "B": "$A", "C": "file-", "HOME": "/root", "KEPT": "yes",
		"BATON_WORKERS": "6", "EMPTY": "", "D": "yaml",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Error(diff)
	}
	if base["A"] != "inherited" || len(base) != 4 {
		t.Errorf("the base was changed: %v", base)
	}
	if v, ok := os.LookupEnv("EMPTY"); ok {
		t.Errorf("the environment of the process was changed: EMPTY=%q", v)
	}

	o := mustResolve(t, base, EnvFile("/elsewhere"), EnvFile(path), Workers(2))
	if diff := cmp.Diff(want, o.env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"workers=6 from BATON_WORKERS in " + path + ", code says 2"}, o.overrides); diff != "" {
		t.Error(diff)
	}

	base["BATON_ENV_FILE"] = path
	if o := mustResolve(t, base, EnvFile("/elsewhere")); o.EnvFile != path || o.Workers != 6 {
		t.Errorf("BATON_ENV_FILE did not win: EnvFile %q, Workers %d", o.EnvFile, o.Workers)
	}
}

func TestNoEnvFile(t *testing.T) {
	env, err := loadEnvFile("", nil)
	if err != nil || env == nil || len(env) != 0 {
		t.Errorf("%v, %v", env, err)
	}
}

func TestBadEnvFiles(t *testing.T) {
	const reserved = ": names that begin with %s are reserved: expected another name"
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"reserved names", "_BATON_X=1\nTABLEFLIP_HAS_PARENT_7DIU3=yes\nLISTEN_FDS=1\nNOTIFY_SOCKET=/x\nOK=1", []string{
			"LISTEN_FDS" + fmt.Sprintf(reserved, "LISTEN_"),
			"NOTIFY_SOCKET" + fmt.Sprintf(reserved, "NOTIFY_SOCKET"),
			"TABLEFLIP_HAS_PARENT_7DIU3" + fmt.Sprintf(reserved, "TABLEFLIP_"),
			"_BATON_X" + fmt.Sprintf(reserved, "_BATON_"),
		}},
		{"another file", "BATON_ENV_FILE=/x", []string{"BATON_ENV_FILE: a file cannot name another one: expected it in the environment"}},
		{"no name", "A=1\n\n# c\ns3cret word\nB=2\n", []string{"line 4 has no name that could be a variable's: expected NAME=value"}},
		{"no name at the end", "A=1\ns3cret", []string{"a line without NAME=: expected NAME=value"}},
		{"two words", "A s3cret=1", []string{`"A s3cret" is not a name: expected letters, digits, underscores and dots, no digit first`}},
		{"digit first", "1A=s3cret", []string{`"1A" is not a name: expected letters, digits, underscores and dots, no digit first`}},
		{"open quote", "A=\"s3cret\nB=1", []string{"a quoted value has no closing quote: expected NAME=value lines"}},
		{"NUL", "A=s3\x00cret", []string{"A: a NUL byte in the value: expected text"}},
		{"binary", "\x7fELF\x00\x01s3cret", []string{"line 1 has no name that could be a variable's: expected NAME=value"}},
		{"too large", strings.Repeat("#", maxEnvFile+1), []string{"larger than 1048576 bytes: expected a file of NAME=value lines"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := writeEnvFile(t, tt.text)
			_, err := loadEnvFile(path, nil)
			var want []string
			for _, w := range tt.want {
				want = append(want, fmt.Sprintf("EnvFile(%q): %s", path, w))
			}
			if diff := cmp.Diff(want, problemsOf(t, err)); diff != "" {
				t.Error(diff)
			}
			if tt.name != "two words" && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows a value: %v", err)
			}
			if _, err := resolve([]Option{EnvFile(path)}, nil); cmp.Diff(want, problemsOf(t, err)) != "" {
				t.Errorf("resolve says it otherwise: %v", err)
			}
		})
	}
}

func TestEnvFileMustBeARegularFile(t *testing.T) {
	_, err := loadEnvFile(t.TempDir(), nil)
	if p := problemsOf(t, err); !strings.HasSuffix(p[0], ": not a regular file but d---------: expected a file of NAME=value lines") {
		t.Error(p)
	}
	_, err = loadEnvFile(filepath.Join(t.TempDir(), "none"), nil)
	if p := problemsOf(t, err); !strings.HasSuffix(p[0], ": stat: no such file or directory") {
		t.Error(p)
	}
}

func TestBadValueInAnEnvFileNamesTheFile(t *testing.T) {
	path := writeEnvFile(t, "BATON_WORKERS=many\nPORT=x\nGOMEMLIMIT=x\n")
	_, err := resolve(nil, environment{"BATON_ENV_FILE": path})
	want := []string{
		`BATON_WORKERS="many" in ` + path + `: expected a whole number from 0 to 1024`,
		`PORT="x" in ` + path + `: expected a port number from 0 to 65535`,
		`GOMEMLIMIT="x" in ` + path + `: expected bytes as in "512MiB", with B, KiB, MiB, GiB, TiB or no unit, or "off"`,
	}
	if diff := cmp.Diff(want, problemsOf(t, err)); diff != "" {
		t.Error(diff)
	}
}
