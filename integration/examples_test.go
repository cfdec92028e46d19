//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// The examples that people will copy do what they say.

func exampleService(t *testing.T, name string) *service {
	t.Helper()
	path, err := build("../examples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return newService(t, appConfig{}, withApp(path), withArgs("-listen", "127.0.0.1:0"), withEnv("BATON_WORKERS=2"))
}

// deployMixed deploys n times by turns, one upgrade after two reloads.
func deployMixed(s *service, n int) {
	s.t.Helper()
	for i := range n {
		if i%3 == 2 {
			deployTimes(s, 1, s.upgrade)
		} else {
			deployTimes(s, 1, s.reload)
		}
	}
}

// numbered sends numbered messages until stop is closed, and then "end", and
// requires an answer "WORKER: N TEXT" to each, N being the next. It sends on the
// returned channel when all have been answered.
func numbered(stop <-chan struct{}, say func(text string) error, hear func() (string, error)) <-chan error {
	window := make(chan struct{}, 64)
	go func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				_ = say("end")
				return
			case window <- struct{}{}:
			}
			if say(fmt.Sprint("message ", i)) != nil {
				return // who hears notices, too
			}
		}
	}()
	done := make(chan error, 1)
	go func() {
		for i := 1; ; i++ {
			answer, err := hear()
			_, rest, _ := strings.Cut(answer, ": ")
			if err == nil && rest == fmt.Sprint(i, " end") {
				done <- nil
				return
			}
			if err == nil && rest != fmt.Sprintf("%d message %d", i, i) {
				err = errors.New("not the next")
			}
			if err != nil {
				done <- fmt.Errorf("answer %d is %q: %w", i, answer, err)
				return
			}
			<-window
		}
	}()
	return done
}

func TestExampleEchoKeepsItsSessions(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := exampleService(t, "echo")
	k := talk(t, s.addr)
	stop := make(chan struct{})
	done := numbered(stop, func(text string) error {
		_ = k.c.SetWriteDeadline(time.Now().Add(sessionTime))
		_, err := k.c.Write([]byte(text + "\n"))
		return err
	}, func() (string, error) {
		_ = k.c.SetReadDeadline(time.Now().Add(sessionTime))
		line, err := k.in.ReadString('\n')
		return strings.TrimSuffix(line, "\n"), err
	})
	deployMixed(s, tier(12, 60))
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	_ = k.c.SetReadDeadline(time.Now().Add(sessionTime))
	if line, err := io.ReadAll(k.in); err != nil || !strings.HasPrefix(string(line), "bye: ") {
		t.Errorf("at the stop: %q, %v", line, err)
	}
	requireNoneCut(s)
}

func TestExampleWebsocketKeepsItsSessions(t *testing.T) {
	t.Parallel() // its load leaves room for others
	s := exampleService(t, "websocket")
	if a := s.get("/"); a.status != 200 || !strings.Contains(a.body, "new WebSocket(") {
		t.Errorf("page: %+v", a)
	}
	busy, silent := dialWebsocket(t, s), dialWebsocket(t, s)
	write := func(c net.Conn, f ws.Frame) error {
		b, err := ws.CompileFrame(ws.MaskFrame(f))
		if err != nil {
			return err
		}
		cut := len(b) / 2 // a drain can come in between
		for _, part := range [][]byte{b[:cut], b[cut:]} {
			if _, err = c.Write(part); err != nil {
				return err
			}
		}
		return nil
	}
	stop := make(chan struct{})
	done := numbered(stop, func(text string) error {
		_ = busy.SetWriteDeadline(time.Now().Add(sessionTime))
		if err := write(busy, ws.NewPingFrame(nil)); err != nil { // whose pong wsutil passes over
			return err
		}
		return write(busy, ws.NewTextFrame([]byte(text)))
	}, func() (string, error) {
		_ = busy.SetReadDeadline(time.Now().Add(sessionTime))
		b, err := wsutil.ReadServerText(busy)
		return string(b), err
	})
	deployMixed(s, tier(12, 60))
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = silent.SetDeadline(time.Now().Add(sessionTime))
	if err := write(silent, ws.NewTextFrame([]byte("hello"))); err != nil {
		t.Fatal(err)
	}
	if b, err := wsutil.ReadServerText(silent); err != nil || !strings.HasSuffix(string(b), ": 1 hello") {
		t.Errorf("%q, %v", b, err)
	}
	s.signal(syscall.SIGTERM)
	_, err := wsutil.ReadServerText(silent)
	var closed wsutil.ClosedError
	if !errors.As(err, &closed) || closed.Code != ws.StatusGoingAway {
		t.Errorf("at the stop: %v", err)
	}
	requireNoneCut(s)
}

func dialWebsocket(t *testing.T, s *service) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	c, early, _, err := ws.Dial(ctx, "ws://"+s.addr+"/ws")
	if err != nil {
		t.Fatal(err)
	}
	if early != nil {
		t.Fatal("the service spoke first")
	}
	t.Cleanup(func() { c.Close() })
	return c
}
