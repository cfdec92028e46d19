//go:build unix

package framework

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/baton-go/baton/workers"
)

// runWorker is the whole life of a worker.
func runWorker(o *options, m *workers.Mark, serve serveFunc) error {
	term := catchWorkerSignals()
	if !o.Preempt {
		workers.BePatient()
	}
	asked, err := json.Marshal(o.settings)
	if err != nil {
		return fmt.Errorf("baton: %w", err)
	}
	w, err := m.Join(asked)
	if errors.Is(err, workers.ErrNotWanted) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("baton: worker %s: %w", WorkerID(), err)
	}
	defer w.Close()

	log := o.logger.With("worker", WorkerID(), "pid", os.Getpid())
	w.OnBond(func(b workers.Bond) {
		switch b {
		case workers.Orphan:
			log.Warn("the master is gone, this worker goes on without")
		case workers.Bonded:
			log.Info("a new master has adopted this worker")
		case workers.Resigned:
			log.Warn("no new master has come, this worker finishes and leaves")
		}
	})

	l := newLife(w.Open)
	l.follow(w.Shared(), logger{o.logger})
	l.turns.spread = o.DrainSpread
	ls := newListeners()
	accepting := make(chan struct{})
	for _, ln := range w.Listeners() {
		ls.add(ln.Name(), ln)
		ln.OnAdopt(o.adopters[ln.Name()])
	}
	go func() {
		for _, ln := range w.Listeners() {
			select {
			case <-ln.Asked():
			case <-l.base.Done():
				return
			}
		}
		close(accepting)
	}()
	l.give = func(ln net.Listener, c net.Conn, m workers.Moved) workers.Reception {
		wl, ok := ln.(*workers.Listener)
		if !ok {
			return workers.Kept
		}
		return w.Return(wl, c, m)
	}
	checked := make(chan error, 1)
	returned := make(chan error, 1)
	go func() { returned <- serve(l.serve, ls) }()
	var before balance
	begin := func(o workers.DrainOrder) {
		before = balance{w.Open(), w.Taken(), w.Moved()}
		l.drain(o)
	}

	// Until the drain begins.
	for sayReady, orphaned, leaving := l.ready, w.Orphaned(), false; ; {
		select {
		case <-accepting:
			accepting = nil
			Ready(l.base)
			continue
		case <-sayReady:
			sayReady = nil
			go func() { checked <- o.passes(l.base, l.built) }()
			continue
		case err := <-checked:
			if err == nil {
				err = w.Ready()
			} else {
				w.Failed(err.Error())
				_ = l.end(o.KillTimeout)
			}
			if err != nil {
				return fmt.Errorf("baton: worker %s: %w", WorkerID(), err)
			}
			continue
		case err := <-returned:
			if err == nil {
				err = errors.New("the serve function returned before it was told to stop")
			}
			w.Failed(err.Error())
			_ = l.end(o.KillTimeout)
			return fmt.Errorf("baton: worker %s: %w", WorkerID(), err)
		case <-term:
			if leaving { // a second one means it
				begin(workers.DrainOrder{})
				break
			}
			leaving, l.told = true, true
			if w.Leave() == nil {
				continue // the master drains us once it has a replacement
			}
			begin(workers.DrainOrder{Timeout: o.DrainTimeout, Grace: o.IdleGrace})
		case order := <-w.Drain():
			begin(order)
		case <-orphaned:
			if !w.Serving() {
				// Not wanted any more, or never committed: nobody is served.
				_ = l.end(o.KillTimeout)
				return nil
			}
			begin(workers.DrainOrder{Timeout: o.DrainTimeout, Grace: o.IdleGrace})
		}
		break
	}
	w.Finish()
	report := drainWorker(w, l, before, returned, term)
	w.Drained(report)
	if err := errors.Join(l.end(o.KillTimeout), desert(o, w)); err != nil {
		return fmt.Errorf("baton: worker %s: %w", WorkerID(), err)
	}
	return nil
}

// balance is what a worker has and has had.
type balance struct{ open, taken, moved int }

// drainWorker waits until the application is finished with its connections, or
// the deadline.
func drainWorker(w *workers.Worker, l *life, before balance, returned <-chan error, term <-chan os.Signal) workers.Drained {
	drained := func() workers.Drained {
		return l.tally.drained(before.open+w.Taken()-before.taken, w.Moved()-before.moved, l.wereCut())
	}
	stopped := false
	for {
		if stopped && w.Open() == 0 {
			return drained()
		}
		select {
		case <-returned:
			returned, stopped = nil, true
			for _, ln := range w.Listeners() {
				ln.Discard()
			}
		case <-w.Ended():
		case order := <-w.Drain(): // less time than we thought
			l.drain(order)
		case <-term:
			// The first one is no news: an init that ends tells everybody.
			if l.told {
				l.drain(workers.DrainOrder{})
			}
			l.told = true
		case <-l.cut:
			return drained()
		}
	}
}

// catchWorkerSignals takes the signals that speak to the master out of a
// worker's way: "pkill -HUP app" reaches both. They are caught and not ignored,
// for what is ignored stays so in programs that the application starts. It
// returns TERM and INT.
func catchWorkerSignals() <-chan os.Signal {
	others := make(chan os.Signal, 1)
	signal.Notify(others, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU)
	catchPipe()
	term := make(chan os.Signal, 2)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	return term
}

// workerOptions are the options that a generation's workers are run by.
func (s settings) workerOptions(cpus int) workers.Options {
	n := s.Workers
	if n == 0 {
		n = cpus
	}
	return workers.Options{
		Workers: n, ReadyTimeout: s.ReadyTimeout, DrainTimeout: s.DrainTimeout, KillTimeout: s.KillTimeout,
		HangTimeout: s.HangTimeout, GiveUpAfter: s.GiveUpAfter, BakeTime: s.BakeTime, IdleGrace: s.IdleGrace, MaxDraining: s.MaxDraining,
		Rolling: s.Rolling, Adopts: s.adopted(), Dispatch: s.Dispatch, Accept: s.accepted(),
	}
}
