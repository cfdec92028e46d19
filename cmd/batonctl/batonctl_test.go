//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/rundir"
)

// obeys does everything and says what it was asked for.
func obeys() *script {
	return &script{
		status: control.Status{State: control.StateServing, Accepting: true},
		decide: func(_ context.Context, action string, r control.ScaleRequest, now bool) control.Verdict {
			v := control.Verdict{OK: true, Action: action, Generation: 7, TookMS: 1500}
			switch {
			case r.Workers != nil:
				v.Reason = fmt.Sprintf("%d workers", *r.Workers)
			case r.Delta != 0:
				v.Reason = fmt.Sprintf("%+d workers", r.Delta)
			case now:
				v.Reason = "at once"
			}
			return v
		},
	}
}

// refuses does nothing.
func refuses() *script {
	return &script{
		status: control.Status{State: control.StateServing},
		decide: func(_ context.Context, action string, _ control.ScaleRequest, _ bool) control.Verdict {
			return control.Verdict{Action: action, Reason: "worker 8.1 exited with status 2", Stderr: "panic: no database\n\ngoroutine 1:\n"}
		},
	}
}

func TestExitCodesAndOutput(t *testing.T) {
	obey, refuse, nobody, stale := short(t), short(t), short(t), short(t)
	serve(t, obeys(), obey)
	serve(t, refuses(), refuse)
	l, err := control.Listen(rundir.SocketPath(stale))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()

	const tail = "refused: worker 8.1 exited with status 2\nstderr of the candidate:\npanic: no database\n\ngoroutine 1:\n"
	tests := []struct {
		args   string
		code   int
		stdout string // all of it; "~" before a part of it
		stderr string // likewise
	}{
		{"--runtime-dir " + obey + " reload", 0, "reload: done, generation 7 (1.5s)\n", ""},
		{"--socket " + rundir.SocketPath(obey) + " upgrade", 0, "upgrade: done, generation 7 (1.5s)\n", ""},
		{"upgrade --socket=" + rundir.SocketPath(obey), 0, "upgrade: done, generation 7 (1.5s)\n", ""},
		{"--runtime-dir " + obey + " scale 4", 0, "scale: done, generation 7 (1.5s): 4 workers\n", ""},
		{"--runtime-dir " + obey + " scale +2", 0, "~: +2 workers\n", ""},
		{"--runtime-dir " + obey + " scale -1", 0, "~: -1 workers\n", ""},
		{"--runtime-dir " + obey + " scale -- -1", 0, "~: -1 workers\n", ""},
		{"scale -12 --timeout 9s --runtime-dir " + obey, 0, "~: -12 workers\n", ""},
		{"--runtime-dir " + obey + " weight 1=3 2=0", 0, "~: map[1:3 2:0]\n", ""},
		{"--runtime-dir " + obey + " stop", 0, "stop: done, generation 7 (1.5s)\n", ""},
		{"--runtime-dir " + obey + " stop --now", 0, "~: at once\n", ""},
		{"--runtime-dir " + obey + " status", 0, "~serving  master 0", ""},
		{"--runtime-dir " + obey + " --timeout 0 status", 0, "~serving  master 0", ""},

		{"--runtime-dir " + refuse + " reload", 1, "", "batonctl: reload " + tail},
		{"--runtime-dir " + refuse + " upgrade", 1, "", "batonctl: upgrade " + tail},
		{"--runtime-dir " + refuse + " rollback", 1, "", "batonctl: rollback " + tail},
		{"--runtime-dir " + obey + " rollback", 0, "rollback: done, generation 7 (1.5s)\n", ""},
		{"--runtime-dir " + refuse + " scale 3", 1, "", "batonctl: scale " + tail},
		{"--runtime-dir " + refuse + " weight 1=1", 1, "", "batonctl: weight " + tail},
		{"--runtime-dir " + refuse + " stop", 1, "", "batonctl: stop " + tail},
		{"--runtime-dir " + refuse + " status", 0, "~serving (not accepting)", ""},

		{"", 2, "", "~see batonctl --help"},
		{"restart", 2, "", "~restart"},
		{"scale", 2, "", "~see batonctl --help"},
		{"--runtime-dir " + obey + " scale many", 2, "", `~"many", expected a number of workers, or +N or -N`},
		{"--runtime-dir " + obey + " scale 0", 2, "", "~0 workers, expected 1 or more"},
		{"--runtime-dir " + obey + " scale -0", 2, "", "~expected a number of workers"},
		{"--runtime-dir " + obey + " scale 99999999999999999999", 2, "", "~out of range"},
		{"--runtime-dir " + obey + " scale -x", 2, "", "~-x"},
		{"weight", 2, "", "~see batonctl --help"},
		{"--runtime-dir " + obey + " weight 1", 2, "", `~"1", expected SLOT=W`},
		{"--runtime-dir " + obey + " weight 0=1", 2, "", `~"0=1", expected SLOT=W`},
		{"--runtime-dir " + obey + " weight 1=-1", 2, "", `~"1=-1", expected SLOT=W`},
		{"--runtime-dir " + obey + " weight 1=x", 2, "", `~"1=x", expected SLOT=W`},
		{"--runtime-dir " + obey + " weight 1=1 1=2", 2, "", `~"1=2", expected one weight for a slot`},
		{"--runtime-dir a --socket b status", 2, "", "~--socket"},
		{"--timeout x status", 2, "", "~--timeout"},
		{"--timeout=-1s status", 2, "", "~expected 0 or more"},
		{"status --watch=0s", 2, "", "~positive duration"},
		{"status --watch=often", 2, "", "~positive duration"},

		{"--runtime-dir " + nobody + " status", 3, "", "~no service reached: dial unix " + rundir.SocketPath(nobody)},
		{"--runtime-dir " + stale + " reload", 3, "", "~connection refused"},
		{"--socket /nonexistent/s stop", 3, "", "~/nonexistent/s"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			r := batonctl(t, nil, strings.Fields(tt.args)...)
			if r.code != tt.code || !matches(r.stdout, tt.stdout) || !matches(r.stderr, tt.stderr) {
				t.Errorf("have code %d\nstdout %q\nstderr %q\nwant code %d\nstdout %q\nstderr %q",
					r.code, r.stdout, r.stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

func matches(have, want string) bool {
	if part, ok := strings.CutPrefix(want, "~"); ok {
		return strings.Contains(have, part)
	}
	return have == want
}

func TestHelpTellsTheExitCodes(t *testing.T) {
	r := batonctl(t, nil, "--help")
	if r.code != 0 || r.stderr != "" {
		t.Errorf("have code %d, stderr %q", r.code, r.stderr)
	}
	for _, want := range []string{"0 done", "1 refused or failed", "2 usage", "3 no service reached",
		"--runtime-dir", "$RUNTIME_DIRECTORY", "reload", "upgrade", "rollback", "scale", "weight", "stop", "status"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
}

func TestServiceIsFound(t *testing.T) {
	services := func(t *testing.T, names ...string) []string {
		xdg := short(t)
		for _, n := range names {
			s := obeys()
			s.status.Master = control.Master{PID: 7, Binary: control.Binary{Path: "/opt/app"}}
			s.status.Listeners = []control.Listener{{Address: ":80"}, {Address: ":81"}}
			serve(t, s, mkdir(t, xdg, "baton", n))
		}
		l, err := control.Listen(rundir.SocketPath(mkdir(t, xdg, "baton", "dead")))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return []string{"XDG_RUNTIME_DIR=" + xdg}
	}
	t.Run("the only one", func(t *testing.T) {
		r := batonctl(t, services(t, "a"), "reload")
		if r.code != 0 || r.stdout == "" {
			t.Errorf("have %+v", r)
		}
	})
	t.Run("several", func(t *testing.T) {
		env := services(t, "a", "b")
		r := batonctl(t, env, "reload")
		xdg := strings.TrimPrefix(env[0], "XDG_RUNTIME_DIR=")
		want := "batonctl: several services answer, choose one by --runtime-dir:\n  " + xdg + "/baton/a (/opt/app, pid 7, on :80, :81)\n  " + xdg + "/baton/b (/opt/app, pid 7, on :80, :81)\n"
		if r.code != 2 || r.stderr != want {
			t.Errorf("have %+v\nwant %q", r, want)
		}
	})
	t.Run("dead ones only", func(t *testing.T) {
		r := batonctl(t, services(t), "reload")
		if r.code != 3 || !strings.Contains(r.stderr, "nobody answers in\n") || !strings.Contains(r.stderr, "/baton/dead") {
			t.Errorf("have %+v", r)
		}
	})
	t.Run("root's", func(t *testing.T) {
		run := short(t)
		serve(t, obeys(), mkdir(t, run, "baton", "a"))
		if r := batonctl(t, []string{selfEnv + "=" + run}, "reload"); r.code != 0 {
			t.Errorf("have %+v", r)
		}
	})
	t.Run("none", func(t *testing.T) {
		r := batonctl(t, nil, "reload")
		if r.code != 3 || !strings.Contains(r.stderr, "no service reached: there is none in the default places") {
			t.Errorf("have %+v", r)
		}
	})
	t.Run("by systemd's variable", func(t *testing.T) {
		dir := short(t)
		serve(t, obeys(), dir)
		env := append(services(t, "a", "b"), "RUNTIME_DIRECTORY="+dir+":/run/other")
		if r := batonctl(t, env, "reload"); r.code != 0 {
			t.Errorf("have %+v", r)
		}
		// What is on the command line counts first.
		if r := batonctl(t, env, "--runtime-dir", dir+"x", "reload"); r.code != 3 {
			t.Errorf("have %+v", r)
		}
	})
}

func TestTimeoutEndsTheWaitAndNotTheDeploy(t *testing.T) {
	release, decided := make(chan struct{}), make(chan error, 1)
	b := obeys()
	b.decide = func(ctx context.Context, action string, _ control.ScaleRequest, _ bool) control.Verdict {
		<-release
		decided <- ctx.Err()
		return control.Verdict{OK: true, Action: action}
	}
	dir := short(t)
	serve(t, b, dir)
	r := batonctl(t, nil, "--runtime-dir", dir, "--timeout", "50ms", "reload")
	if r.code != 1 || !strings.Contains(r.stderr, "no answer within 50ms; what was asked for goes on") {
		t.Errorf("have %+v", r)
	}
	close(release)
	select {
	case err := <-decided:
		if err != nil {
			t.Errorf("the deploy's context: %v", err)
		}
	case <-time.After(patience):
		t.Error("the deploy was never decided")
	}
}

func TestStatusJSONIsTheServersOwn(t *testing.T) {
	b := obeys()
	b.status = sample()
	dir := short(t)
	serve(t, b, dir)
	r := batonctl(t, nil, "--runtime-dir", dir, "status", "--json")
	if r.code != 0 || r.stderr != "" || !strings.HasPrefix(r.stdout, "{\n  \"schema\": 1,\n") {
		t.Fatalf("have %+v", r)
	}
	var have control.Status
	if err := json.Unmarshal([]byte(r.stdout), &have); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sample(), have, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
}

func TestWatchRedrawsUntilInterrupted(t *testing.T) {
	dir := short(t)
	serve(t, obeys(), dir)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := command(ctx, t, nil, "--runtime-dir", dir, "status", "--watch=10ms")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drawn := 0
	for s := bufio.NewScanner(out); drawn < 3 && s.Scan(); {
		if strings.HasPrefix(s.Text(), "serving  master") {
			drawn++
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || drawn != 3 {
		t.Errorf("drawn %d times, exit %v", drawn, err)
	}
	if r := batonctl(t, nil, "--runtime-dir", dir+"x", "status", "--watch"); r.code != 3 {
		t.Errorf("nobody there: have %+v", r)
	}
}
