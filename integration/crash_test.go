//go:build linux

package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/load"
)

// supervised is what makes workers outlive their master.
const supervised = "BATON_ORPHAN_TIMEOUT=1m"

// killMaster kills the master and waits until it is gone, as a supervisor does.
func (s *service) killMaster() {
	s.t.Helper()
	s.signal(syscall.SIGKILL)
	select {
	case <-s.exited:
	case <-time.After(waitTime):
		s.t.Fatal("the master is not gone")
	}
}

func TestKilledMasterTry(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2}, withEnv(supervised))
	finish := s.start(load.Config{Plans: append(kept(), load.Plan{Class: load.PerConn, Clients: 4})})
	for range 3 {
		<-time.After(time.Second)
		s.killMaster()
		<-time.After(200 * time.Millisecond)
		s.launch()
		s.waitServing()
	}
	<-time.After(time.Second)
	r := finish()
	t.Log(r)
	t.Log(s.describe())
}
