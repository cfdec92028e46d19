//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/internal/fault"
)

// oldServesOn are the moments of an upgrade at which the death of the new master
// is a refusal and no more.
var oldServesOn = map[string]bool{
	"new: started": true, "new: claimed": true, "new: ready": true, "new: has everything": true, "new: before go": true,
}

// A master that dies right at a step of a deploy, or while it adopts what a dead
// one has left, and a supervisor that starts another.
func TestMasterKilledAtEachStepLosesNothing(t *testing.T) {
	app, err := buildAs("testapp-fault", "./testapp", "-tags=baton_fault")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fault")
	s := newService(t, withPIDFile(t, appConfig{Version: "v0", Workers: 2}), withApp(app), withEnv(supervised, "TESTAPP_FAULT_FILE="+file))
	outcome := []string{"| killed at | master | serves | generation |", "|---|---|---|---|"}
	kills := 0
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 2})})
	for i, moment := range fault.Moments {
		was, version := s.masterProcess(), fmt.Sprintf("v%d", i+1)
		installVersion(s, version)
		if err := os.WriteFile(file, []byte(moment), 0o600); err != nil {
			t.Fatal(err)
		}
		switch side, _, _ := strings.Cut(moment, ":"); side {
		case "reload":
			mustSignal(t, was, syscall.SIGHUP)
		case "old", "new":
			mustSignal(t, was, syscall.SIGUSR2)
		case "crash":
			s.killMaster()
			kills++
			s.launch()
		}
		eventually(t, startTime, "it died at "+moment, func() bool {
			_, err := os.Stat(file)
			return errors.Is(err, fs.ErrNotExist)
		})
		kills++
		<-time.After(supervisorPause)
		s.restart()
		serves := s.get("/version").version
		st := requireCoherent(s, serves, 2)
		who := "another"
		if st.Master.PID == was.PID {
			who = "the old"
		}
		if oldServesOn[moment] != (who == "the old") {
			t.Errorf("%s: %s master has the service", moment, who)
		}
		outcome = append(outcome, fmt.Sprintf("| %s | %s | %s | %d |", moment, who, serves, st.Generations[0].Number))
		if moment == "new: before go" { // tableflip takes it for done, and refuses another
			s.crash()
			kills++
			requireCoherent(s, version, 2)
		} else if serves != version { // the next one compares with it
			if v := s.reload(); !v.OK {
				t.Fatalf("%s: reload after it: %+v", moment, v)
			}
			requireCoherent(s, version, 2)
		}
	}
	t.Log("\n" + strings.Join(outcome, "\n"))
	requireOnlyUnsent(s, finish(), kills)
	requireStops(s)
}
