//go:build unix

package framework

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTermGoesOnForStopDelay: the listeners stay open until the delay is over;
// a second TERM is for at once.
func TestTermGoesOnForStopDelay(t *testing.T) {
	blocked, hold := make(chan struct{}), make(chan struct{})
	defer close(hold)
	s := launch(t, handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			close(blocked)
			<-hold
		}
	}), StopDelay(time.Hour), StopTimeout(2*time.Hour))
	addr := s.addr()
	s.logs.await(t, "msg=serving")
	term := func() {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	term()
	s.logs.await(t, "msg=stopping")
	c := dial(t, addr)
	c.send(get)
	if resp, _ := c.answer(); resp.StatusCode != http.StatusOK {
		t.Errorf("during the delay: %s", resp.Status)
	}
	dial(t, addr).send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
	await(t, blocked, "the request")
	term()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	if log := s.logs.String(); !strings.Contains(log, "level=WARN msg=drained cut=2") {
		t.Errorf("log:\n%s", log)
	}
}

// TestSecondTermCutsTheDrain: likewise once the drain goes on.
func TestSecondTermCutsTheDrain(t *testing.T) {
	blocked, hold := make(chan struct{}), make(chan struct{})
	defer close(hold)
	s := launch(t, handler(func(http.ResponseWriter, *http.Request) {
		close(blocked)
		<-hold
	}), StopTimeout(time.Hour))
	dial(t, s.addr()).send(get)
	await(t, blocked, "the request")
	s.logs.await(t, "msg=serving")
	s.stop()
	s.logs.await(t, "msg=stopping")
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	if log := s.logs.String(); !strings.Contains(log, "level=WARN msg=drained cut=1") {
		t.Errorf("log:\n%s", log)
	}
}
