package framework

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/listener"
)

// handedBy makes launch's run function of what a session does with its
// connection, be it accepted or hijacked; early is what net/http has read.
func handedBy(hijack bool, session func(c net.Conn, early string)) func(...Option) error {
	if hijack {
		return handler(func(w http.ResponseWriter, _ *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			early, _ := rw.Peek(rw.Reader.Buffered())
			session(c, string(early))
		})
	}
	return server(func(ctx context.Context, ls Listeners) error {
		for {
			c, err := ls.Get("default").Accept()
			if err != nil {
				return err
			}
			go session(c, "")
		}
	})
}

// In a single process there is nobody else, and the connection goes on.
func TestHandoffOfASingleProcessFindsNobody(t *testing.T) {
	for name, hijack := range map[string]bool{"accepted": false, "hijacked": true} {
		t.Run(name, func(t *testing.T) {
			s := launch(t, handedBy(hijack, func(c net.Conn, early string) {
				defer c.Close()
				if err := Handoff(c, []byte(early), []byte("state")); !errors.Is(err, ErrHandoffNobody) {
					t.Error(err)
				}
				b := make([]byte, len("hello")-len(early))
				if _, err := io.ReadFull(c, b); err != nil || early+string(b) != "hello" {
					t.Errorf("after %q read %q, %v", early, b, err)
				}
				if _, err := io.WriteString(c, "goodbye"); err != nil {
					t.Error(err)
				}
				_ = c.Close()
				if err := Handoff(c, nil, nil); !errors.Is(err, net.ErrClosed) {
					t.Errorf("closed: %v", err)
				}
			}))
			c := dial(t, s.addr())
			if hijack {
				c.send(get)
			}
			c.send("hello")
			b, err := io.ReadAll(c.r)
			if err != nil || string(b) != "goodbye" {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
}

func TestHandoffDuringAReadIsRefused(t *testing.T) {
	s := launch(t, handedBy(true, func(c net.Conn, _ string) {
		defer c.Close()
		done := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // it may not have begun
			err := Handoff(c, nil, nil)
			if errors.Is(err, ErrHandoffInUse) {
				break
			}
			if !errors.Is(err, ErrHandoffNobody) || time.Now().After(end) {
				t.Error(err)
				break
			}
		}
		_ = c.SetReadDeadline(time.Now())
		<-done
		if err := Handoff(c, nil, nil); !errors.Is(err, ErrHandoffNobody) {
			t.Errorf("once it is over: %v", err)
		}
	}))
	c := dial(t, s.addr())
	c.send(get)
	c.ended()
}

func TestHandoffOfWhatIsNotOurs(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	for name, c := range map[string]net.Conn{"pipe": a, "TLS": tls.Server(a, &tls.Config{}), "nil": nil} {
		if err := Handoff(c, nil, nil); !errors.Is(err, ErrHandoffConn) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOnDrain: it wakes readers, one that begins later at once, and can be
// taken back.
func TestOnDrain(t *testing.T) {
	never := func() { t.Error("called") }
	if stop := OnDrain(context.Background(), never); !stop() {
		t.Error("a context of nobody's: called")
	}
	taken := make(chan struct{})
	s := launch(t, server(func(ctx context.Context, ls Listeners) error {
		if !OnDrain(ctx, never)() {
			t.Error("called before the drain")
		}
		c, err := ls.Get("default").Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		stop := OnDrain(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
		close(taken)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if stop() {
			t.Error("it was called, and could be taken back")
		}
		late := make(chan struct{})
		OnDrain(ctx, func() { close(late) })
		await(t, late, "what comes after the drain has begun")
		return nil
	}))
	dial(t, s.addr())
	await(t, taken, "the connection")
	s.logs.await(t, "msg=serving")
	s.stop()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
}

func TestGenerationSaysWhatItAdopts(t *testing.T) {
	adopt := func(net.Conn, []byte) {}
	o := mustResolve(t, nil, Listen("tcp", ":0", listener.Name("a")), Listen("tcp", ":0", listener.Name("b")),
		Listen("unix", "/run/c", listener.Name("c")), OnAdopt("b", adopt), OnAdopt("c", adopt))
	want := []string{listener.Keys(o.Listeners)[1], "unix|/run/c"}
	if diff := cmp.Diff(want, o.settings.adopted()); diff != "" {
		t.Error(diff)
	}
}
