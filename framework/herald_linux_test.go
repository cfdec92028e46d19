package framework

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/systemd"
)

// toHerald returns a herald that looks at the service by look, and what it says.
func toHerald(t *testing.T, watchdog time.Duration, silent bool, look func() string) (*herald, <-chan string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 10_000)
	go func() {
		defer close(said)
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	h := newHerald(path, slog.New(slog.DiscardHandler), silent)
	h.watchdog, h.look = watchdog, look
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = h.run(quit)
	}()
	t.Cleanup(func() {
		close(quit)
		<-done
		c.Close()
	})
	return h, said
}

// hears waits until part is said.
func hears(t *testing.T, said <-chan string, part string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case s := <-said:
			if strings.Contains(s, part) {
				return
			}
		case <-timeout:
			t.Fatalf("%q was never said", part)
		}
	}
}

// silence fails if part is said while the herald's beat comes many times.
func silence(t *testing.T, said <-chan string, part string) {
	t.Helper()
	timeout := time.After(300 * time.Millisecond)
	for {
		select {
		case s := <-said:
			if strings.Contains(s, part) {
				t.Fatalf("%q was said", s)
			}
		case <-timeout:
			return
		}
	}
}

func TestTheWatchdogIsToldOnlyOfAPoolThatTurns(t *testing.T) {
	turns := make(chan string)
	_, said := toHerald(t, 40*time.Millisecond, false, func() string { return <-turns })
	silence(t, said, "WATCHDOG")
	turns <- "well" // it was asked once, and answers at last
	hears(t, said, "WATCHDOG=1")
	for len(said) > 0 {
		<-said
	}
	silence(t, said, "WATCHDOG")
	close(turns)
	hears(t, said, "WATCHDOG=1")
	hears(t, said, "WATCHDOG=1")
}

func TestManyChangesAreOneStatus(t *testing.T) {
	h, said := toHerald(t, 0, false, func() string { return "well" })
	hears(t, said, "STATUS=well")
	for range 1000 {
		h.changed()
	}
	silence(t, said, "STATUS") // it is the same
}

func TestACandidateSaysNothing(t *testing.T) {
	h, said := toHerald(t, 40*time.Millisecond, true, func() string { return "well" })
	h.busy(time.Minute, systemd.Reloading())
	h.done()
	silence(t, said, "")
	h.speak()
	hears(t, said, "WATCHDOG=1")
}

func TestAReplacedMasterSaysNothing(t *testing.T) {
	h, said := toHerald(t, 40*time.Millisecond, false, func() string { return "well" })
	hears(t, said, "WATCHDOG=1")
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		h.replaced(7)
	}()
	hears(t, said, "MAINPID=7\nREADY=1\nWATCHDOG=1")
	<-heard // Read has dropped the barrier's pipe
	hears(t, said, "BARRIER=1")
	h.done()
	silence(t, said, "")
}

func TestWhatGoesOnIsGivenTime(t *testing.T) {
	h, said := toHerald(t, 40*time.Millisecond, false, func() string { return "well" })
	h.busy(time.Hour, systemd.Stopping)
	hears(t, said, "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000")
	hears(t, said, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=20000000") // again and again
	h.done()
	hears(t, said, "READY=1")
	silence(t, said, "EXTEND")
}
