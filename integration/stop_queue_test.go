//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/integration/testapp/config"
)

// What workers have been sent and have not accepted when the service is told to
// stop is served, also by one that closes its listener as soon as it drains.
func TestStopServesWhatWorkersHaveNotAccepted(t *testing.T) {
	for name, quirk := range map[string]string{"accepts on": "", "closes its listener": config.QuirkCloses} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, appConfig{Version: "v1", Workers: 2, Serve: true, Quirk: quirk})
			master, ws := stopWorkers(s)
			var conns []net.Conn
			for range 60 {
				c, err := net.DialTimeout("tcp", s.addr, dialTime)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := fmt.Fprintln(c, "who"); err != nil {
					t.Fatal(err)
				}
				conns = append(conns, c)
			}
			signalPID(t, master, syscall.SIGTERM)
			s.waitLog("stopping")
			for _, w := range ws {
				signalPID(t, w.PID, syscall.SIGCONT)
			}
			for i, c := range conns {
				_ = c.SetDeadline(time.Now().Add(waitTime))
				if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
					t.Fatalf("connection %d of %d: %v", i+1, len(conns), err)
				}
				c.Close()
			}
			if code := s.exitCode(); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
}

// A stop waits for descriptors, too, to take what the kernel has queued.
func TestStopAtTheDescriptorLimitServesTheQueue(t *testing.T) {
	s := newService(t, appConfig{Version: "v1", Workers: 2})
	master, ws := stopWorkers(s)
	limitFiles(t, master, 10)
	requests := s.openRequests(60, "/version")
	s.waitLog(pauseLine)
	signalPID(t, master, syscall.SIGTERM)
	s.waitLog("stopping")
	for _, w := range ws {
		signalPID(t, w.PID, syscall.SIGCONT)
	}
	for i, r := range requests {
		if _, err := r.answer(waitTime); err != nil {
			t.Fatalf("request %d of %d: %v", i+1, len(requests), err)
		}
	}
}
