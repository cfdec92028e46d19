//go:build unix

package framework

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/baton-go/baton/internal/control"
)

// masterSignals are caught from the start: a HUP that came before the first
// generation serves must not end the process.
type masterSignals chan os.Signal

// catchMasterSignals leaves QUIT to the runtime, which dumps goroutines.
func catchMasterSignals() masterSignals {
	c := make(masterSignals, 64)
	catchPipe()
	signal.Notify(c, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT,
		syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGUSR1)
	return c
}

func (c masterSignals) stop() { signal.Stop(c) }

// forward passes signals to the new master. Who sends them goes by a pid that
// was right a moment ago. It never returns: the process is about to exit, and
// what reaches it until then must neither be lost nor end it.
func (m *master) forward(c masterSignals) {
	for sig := range c {
		m.relay(sig)
	}
}

// take turns signals, and the end of StopOn's contexts, into requests.
func (m *master) take(c masterSignals, quit <-chan struct{}) error {
	stop := make(chan struct{}, 1)
	for _, ctx := range m.o.stopOn {
		defer context.AfterFunc(ctx, func() {
			select {
			case stop <- struct{}{}:
			default:
			}
		})()
	}
	for {
		w, s := wantStop, control.ScaleRequest{}
		select {
		case <-quit:
			if m.replaced.Load() {
				for len(c) > 0 { // before the process can exit
					m.relay(<-c)
				}
				go m.forward(c)
			}
			return nil
		case <-stop:
		case sig := <-c:
			if m.replaced.Load() {
				m.relay(sig)
				continue
			}
			switch sig {
			case syscall.SIGHUP:
				w = wantReload
			case syscall.SIGUSR2:
				w = wantUpgrade
			case syscall.SIGTTIN:
				w, s.Delta = wantScale, 1
			case syscall.SIGTTOU:
				w, s.Delta = wantScale, -1
			case syscall.SIGUSR1:
				m.pool.Signal(syscall.SIGUSR1)
				continue
			}
		}
		m.arbiter.ask(request{want: w, scale: s, signal: true, answer: func(v control.Verdict) {
			if !v.OK && v.Generation == 0 { // else the deploy has been logged
				m.o.logger.Warn(v.Action+" refused", "reason", v.Reason)
			}
		}})
	}
}

// catchPipe makes a write to a closed stdout or stderr an error, as it is for
// any other file; the runtime would end the process. A service whose log
// shipper restarts goes on.
func catchPipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
