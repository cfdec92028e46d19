package framework

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
)

// runSingle serves in this one process: under a debugger, in tests, and where
// there are no workers.
func runSingle(o *options, serve serveFunc) error {
	role.Store(int32(RoleSingle))
	o.logChoices()
	if o.User != "" {
		o.logger.Warn(fmt.Sprintf("%s has no effect in a single process, which runs as uid %d", o.source("User", strconv.Quote(o.User)), os.Geteuid()))
	}
	if len(o.accepted()) > 0 {
		o.logger.Warn(o.source("Accept", string(o.Accept)) + " has no effect in a single process, which accepts itself")
	}
	term := make(chan os.Signal, 2)
	signal.Notify(term, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(term)

	open := &openConns{conns: map[*singleConn]struct{}{}, ended: make(chan struct{}, 1)}
	defer open.closeAll()
	l := newLife(open.count)
	l.turns.spread = o.DrainSpread
	ls := newListeners()
	accepting := newAccepting(len(o.Listeners))
	var bound []*listener.Listener
	defer func() {
		for _, ln := range ls.All() {
			_ = ln.Close()
		}
		for _, b := range bound {
			_ = b.Close()
		}
	}()
	for _, spec := range o.Listeners {
		b, err := listener.Bind(spec)
		if err != nil {
			return fmt.Errorf("baton: %w", err)
		}
		bound = append(bound, b)
		ln, err := b.Net()
		if err != nil {
			return fmt.Errorf("baton: %w", err)
		}
		ls.add(spec.Name, newSingleListener(ln, open, accepting))
	}
	for _, b := range bound {
		o.logger.Info("listening", "listener", b.Name(), "address", b.Addr().String())
		for _, f := range o.onListen {
			f(b.Name(), b.Addr())
		}
	}
	returned := make(chan error, 1)
	go func() { returned <- serve(l.serve, ls) }()

	stop := make(chan struct{})
	var once sync.Once
	for _, ctx := range o.stopOn {
		defer context.AfterFunc(ctx, func() { once.Do(func() { close(stop) }) })()
	}
	started := time.Now()
	ready, allAccepting := l.ready, accepting.all
	checked := make(chan error, 1)
	unready := time.NewTimer(o.ReadyTimeout)
	defer unready.Stop()
	for draining := false; !draining; {
		select {
		case <-allAccepting:
			allAccepting = nil
			Ready(l.base)
		case <-ready:
			ready = nil
			go func() { checked <- o.passes(l.base, l.built) }()
		case err := <-checked:
			unready.Stop()
			if err != nil {
				_ = l.end(o.KillTimeout)
				return fmt.Errorf("%w: %w", ErrNotReady, err)
			}
			o.logger.Info("serving", "role", RoleSingle.String(), "took", time.Since(started).Round(time.Millisecond).String())
		case <-unready.C:
			_ = l.end(o.KillTimeout)
			return fmt.Errorf("%w within %v", ErrNotReady, o.ReadyTimeout)
		case err := <-returned:
			if err == nil {
				err = errors.New("the serve function returned before it was told to stop")
			}
			_ = l.end(o.KillTimeout)
			return fmt.Errorf("baton: %w", err)
		case <-term:
			draining = true
		case <-stop:
			draining = true
		}
	}
	o.logger.Info("stopping", "timeout", o.StopTimeout.String(), "delay", o.StopDelay.String())
	timeout := o.StopTimeout - o.StopDelay
	select {
	case <-time.After(o.StopDelay):
	case <-term: // a second one means it
		timeout = 0
	}
	return drainSingle(o, l, ls, open, timeout, returned, term)
}

func drainSingle(
	o *options, l *life, ls Listeners, open *openConns, timeout time.Duration, returned <-chan error, term <-chan os.Signal,
) error {
	began, total := time.Now(), open.count()
	if timeout > 0 && sweepSingle(ls, min(sweepTime, timeout), term) {
		timeout = 0
	}
	timeout = max(timeout-time.Since(began), 0)
	l.drain(workers.DrainOrder{Timeout: timeout, Grace: min(o.IdleGrace, timeout), Reason: "stop"})
	for _, ln := range ls.All() {
		_ = ln.Close()
	}
	for stopped, over := false, false; !over && !(stopped && open.count() == 0); {
		select {
		case <-returned:
			returned, stopped = nil, true
		case <-open.ended:
		case <-term:
			l.drain(workers.DrainOrder{})
		case <-l.cut:
			over = true
		}
	}
	// Before the application's context ends: a handler that sees that end must
	// not answer any more.
	open.closeAll()
	cut := l.wereCut()
	log := o.logger.Info
	if cut > 0 {
		log = o.logger.Warn
	}
	d := l.tally.drained(max(total, cut), 0, cut)
	log("drained", "cut", cut, "soft_drained", d.SoftDrained.Total(), "finished", d.Finished.Total(), "took", time.Since(began).Round(time.Millisecond).String())
	if err := l.end(o.KillTimeout); err != nil {
		return fmt.Errorf("baton: %w", err)
	}
	return nil
}

// sweepTime bounds the sweep, for clients may come faster than they are taken.
const sweepTime = 500 * time.Millisecond

// sweepSingle goes on accepting until the kernel's queues are empty: closing a
// listener resets the connections that wait there. It says whether a signal cut
// it short.
func sweepSingle(ls Listeners, limit time.Duration, term <-chan os.Signal) (hurried bool) {
	end, over := time.Now().Add(limit), time.After(limit)
	for _, ln := range ls.All() {
		ln.(*singleListener).sweep(end)
	}
	for _, ln := range ls.All() {
		select {
		case <-ln.(*singleListener).swept:
		case <-over:
			return false
		case <-term:
			return true
		}
	}
	return false
}
