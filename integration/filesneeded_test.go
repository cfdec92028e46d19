//go:build linux

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/baton-go/baton/integration/testapp/config"
	"github.com/baton-go/baton/internal/control"
)

const lowFiles = "RLIMIT_NOFILE=%d is low"

// filesNeeded asks the application how many descriptors it wants: the least that
// it starts with, and those with which it is comfortable.
func filesNeeded(t *testing.T, cfg appConfig) (least, comfortable int) {
	t.Helper()
	s := deployed(t, cfg)
	s.files = 50
	o := s.runToEnd(nil)
	requireExit(t, o, 78, "baton: invalid configuration", "RLIMIT_NOFILE=50: expected at least ")
	requireNoRuntimeDir(t, s)
	_, text, _ := strings.Cut(o.output, "RLIMIT_NOFILE=50: expected at least ")
	var ws, ls int
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, "listeners", "listener"),
		"%d, which a master of %d workers and %d listener needs to work; %d are comfortable", &least, &ws, &ls, &comfortable); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if ws != cfg.Workers || ls != max(len(cfg.Listeners), 1) || comfortable <= least {
		t.Fatalf("it said: %s", o.output)
	}
	return least, comfortable
}

func requireTaken(t *testing.T, v control.Verdict) {
	t.Helper()
	if !v.OK {
		t.Fatalf("refused: %+v", v)
	}
}

// With the least that the master starts with everything works, the deploys of
// all kinds included, and it says that there is little.
func TestLeastDescriptorsAreEnough(t *testing.T) {
	several := []config.Listener{
		{Network: "tcp", Addr: "127.0.0.1:0", Name: "main"}, {Network: "tcp", Addr: "127.0.0.1:0", Name: "two"},
		{Network: "unix", Addr: "three.sock", Name: "three"}, {Network: "tcp", Addr: "127.0.0.1:0", Name: "four"},
	}
	for _, cfg := range []appConfig{{Version: "v1", Workers: 2}, {Version: "v1", Workers: 6, Listeners: several}} {
		t.Run(fmt.Sprintf("%d workers", cfg.Workers), func(t *testing.T) {
			least, comfortable := filesNeeded(t, cfg)
			short := deployed(t, cfg)
			short.files = least - 1
			requireExit(t, short.runToEnd(nil), 78, fmt.Sprintf("RLIMIT_NOFILE=%d: expected at least %d", least-1, least))

			s := newService(t, cfg, withFiles(least))
			if n := s.countLog(fmt.Sprintf(lowFiles, least)); n != 1 {
				t.Errorf("%d warnings", n)
			}
			h := gather(s, 60)
			for i, deploy := range []func(){
				func() { requireTaken(t, s.reload()) },
				func() { requireTaken(t, s.upgrade()) },
				func() { requireTaken(t, s.upgrade()) },
				func() { requireTaken(t, s.reload()) },
				func() {
					w := s.workers()[0]
					signalPID(t, w.PID, syscall.SIGTERM)
					waitReplaced(s, w)
				},
			} {
				cfg.Version = fmt.Sprintf("v%d", i+2)
				s.install(cfg)
				deploy()
				requireAnswers(t, s.openRequests(40, "/version"), waitTime)
				s.waitStatus("one generation", oneGeneration)
				h.requireUnnoticed()
			}
			if n := s.countLog(pauseLine); n > 0 {
				t.Logf("accepting was paused %d times", n)
			}
			checkLedger(t, s.status())

			s = newService(t, cfg, withFiles(comfortable))
			if n := s.countLog("is low"); n != 0 {
				t.Errorf("%d warnings with %d descriptors", n, comfortable)
			}
		})
	}
}
