//go:build unix

package framework

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/fault"
	"github.com/baton-go/baton/internal/systemd"
	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/upgrade"
	"github.com/baton-go/baton/workers"
)

// The jobs of the arbiter: one at a time, but for scale and stop.

// needsMaster: the new release wants what only a new master can give it.
func needsMaster(fields []string) error {
	return fmt.Errorf("it changes %s: %w", strings.Join(fields, ", "), workers.ErrNeedsMaster)
}

// workerOptions reads what a generation's first worker was started as.
func (m *master) workerOptions(in workers.Intro) (workers.Options, []string, error) {
	// What its release does not know yet has its default.
	asked := settings{generationSettings: defaultSettings()}
	if err := json.Unmarshal(in.Settings, &asked); err != nil {
		return workers.Options{}, nil, fmt.Errorf("its settings: %w", err)
	}
	if fields := m.o.masterSettings.differs(asked.masterSettings); len(fields) > 0 {
		return workers.Options{}, nil, needsMaster(fields)
	}
	if _, err := m.o.policyNamed(asked.Dispatch); err != nil { // code that only a later master has
		return workers.Options{}, nil, needsMaster([]string{"Dispatch to " + asked.Dispatch})
	}
	said := "accept mode " + string(asked.Accept)
	if problems := slices.Concat(m.o.unacceptable(asked, said), m.o.incapable(asked, said)); len(problems) > 0 {
		return workers.Options{}, nil, errors.New(strings.Join(problems, "; "))
	}
	o := asked.workerOptions(m.cpus)
	o.Rolling = o.Rolling && !m.anew
	o.OrphanTimeout = m.orphanTimeout(asked.OrphanTimeout)
	m.times = stopTimes{asked.StopTimeout, asked.StopDelay}
	n := o.Workers
	m.asked = n
	if scaled := m.scaled.Load(); scaled > 0 {
		n = int(scaled)
	}
	if m.pinnedEnv != nil {
		return o, m.pinnedEnv, nil
	}
	return o, m.workerEnv(m.env, n), nil
}

func (m *master) workerEnv(env environment, n int) []string {
	return shareEnv(m.o.asUser(env), n, m.cpus).list()
}

// spec pins the binary on disk and reads the environment for a new generation.
func (m *master) spec() (workers.Spec, error) {
	path, err := workers.FindBinary(os.Args[0], workingDir)
	if err != nil {
		return workers.Spec{}, fmt.Errorf("new binary: %w", err)
	}
	env, err := loadEnvFile(m.o.EnvFile, m.o.inherited)
	if err != nil {
		return workers.Spec{}, err
	}
	b, err := workers.Pin(path)
	if err != nil {
		return workers.Spec{}, err
	}
	m.env = env
	// The number of workers is known once the first has said it; until then it
	// counts as unchanged.
	n := m.o.workerOptions(m.cpus).Workers
	if wanted := m.pool.Wanted(); wanted > 0 {
		n = wanted
	} else if scaled := m.scaled.Load(); scaled > 0 {
		n = int(scaled)
	}
	return workers.Spec{
		Number: m.next, Binary: b, Env: m.workerEnv(env, n),
		ReadyTimeout: m.o.ReadyTimeout, KillTimeout: m.o.KillTimeout,
	}, nil
}

// prepare starts the next generation and waits until it is ready.
func (m *master) prepare(ctx context.Context) (int, error) {
	s, err := m.spec()
	if err != nil {
		return m.next, err
	}
	m.next++
	return s.Number, m.pool.Prepare(ctx, s)
}

// commit makes generation n the serving one, with its times for a stop.
func (m *master) commit(n int) error {
	if err := m.pool.Commit(n); err != nil {
		return err
	}
	m.stopTimes.Store(m.times)
	for _, f := range m.dropped {
		f.remove()
	}
	m.dropped = nil
	if scaled := int(m.scaled.Load()); scaled > 0 && scaled != m.asked {
		m.o.logger.Info(fmt.Sprintf("workers=%d as scaled, the release says %d", scaled, m.asked), "generation", n)
	}
	return nil
}

// start brings up the first generation: of a new service, or of a new master.
func (m *master) start(ctx context.Context) control.Verdict {
	if m.pred == nil {
		m.herald.busy(m.o.ReadyTimeout + m.o.KillTimeout)
	}
	v := m.startFirst(ctx)
	switch {
	case v.OK && m.pred == nil:
		m.herald.done()
		m.store()
	case v.OK:
		m.herald.speak()
	default:
		m.failure = fmt.Errorf("%w: %s", ErrNotReady, v.Reason)
		if v.Stderr != "" {
			m.failure = fmt.Errorf("%w\n%s", m.failure, v.Stderr)
		}
		if ctx.Err() != nil {
			m.failure = nil // stopped before it started is no failure
			m.o.logger.Info("stopping", "reason", context.Cause(ctx).Error())
		}
	}
	return v
}

func (m *master) startFirst(ctx context.Context) control.Verdict {
	if m.pred == nil {
		return m.startAnew(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-m.pred.Lost():
			cancel(upgrade.ErrCancelled)
		case <-ctx.Done():
		}
	}()
	n, err := m.prepare(ctx)
	if err == nil {
		fault.Point("new: ready")
		err = m.takeOver(n)
	}
	if err != nil {
		v := m.refused(n, err)
		m.pred.Refuse(v.Reason + stderrMark + v.Stderr)
		return v
	}
	m.keepRecord()
	if err := m.commit(n); err != nil {
		// A worker died in this very moment. The old generation, adopted,
		// serves on, and so do we.
		m.o.logger.Error("the new generation could not be committed", "generation", n, "reason", err.Error())
		m.pool.Restore()
	}
	fault.Point("new: committed")
	if m.orphans = m.openOrphanage(m.pool.Has); m.orphans != nil { // that the old master still waited for
		m.pool.FosterRest(m.orphans.Orphans)
	}
	m.takeCharge()
	fault.Point("new: in charge")
	return control.Verdict{OK: true, Generation: n}
}

// startAnew brings up a service that has no master. It may have workers, of one
// that was killed: those serve meanwhile, and on if the new ones are refused.
func (m *master) startAnew(ctx context.Context) control.Verdict {
	began := time.Now()
	serving := m.foster()
	m.keepRecord()
	fault.Point("crash: adopted")
	m.anew = true // workers that accept for themselves are replaced at once
	n, err := m.prepare(ctx)
	m.anew = false
	if err == nil {
		err = m.commit(n)
	}
	fault.Point("crash: committed")
	if err != nil {
		v := m.refused(n, err)
		if serving == 0 {
			return v
		}
		m.report(control.ActionReload, began, v)
		m.pool.Restore()
		n = serving
	}
	if m.orphans != nil {
		m.pool.FosterRest(m.orphans.Orphans)
	}
	if err := m.up.Ready(); err != nil {
		if serving == 0 {
			return m.refused(n, err)
		}
		m.o.logger.Error("this master cannot be replaced", "reason", err.Error())
	}
	m.takeCharge()
	return control.Verdict{OK: true, Generation: n}
}

// takeCharge is called when this process has become the master.
func (m *master) takeCharge() {
	m.charge.Do(func() {
		m.took.Store(true)
		m.init.Tell(upgrade.NoticeServes)
		m.tend() // the pid file, for one, is not this process's yet
		close(m.mayControl)
	})
}

func (m *master) reload(ctx context.Context) control.Verdict {
	began := m.deploys(ctx, m.o.ReadyTimeout)
	n, err := m.prepare(ctx)
	if err == nil {
		fault.Point("reload: ready")
		err = m.commit(n)
		fault.Point("reload: committed")
	}
	if err == nil {
		err = m.pool.Rolled(ctx)
	}
	if errors.Is(err, workers.ErrNeedsMaster) {
		m.next = n // nobody has seen it
		m.o.logger.Info("the reload becomes an upgrade", "reason", err.Error())
		return control.Verdict{Action: control.ActionUpgrade, Reason: err.Error()}
	}
	if err != nil {
		return m.report(control.ActionReload, began, m.refused(n, err))
	}
	return m.report(control.ActionReload, began, control.Verdict{OK: true, Generation: n})
}

func (m *master) upgrade(ctx context.Context) control.Verdict {
	// First a worker of the new binary, which is heard and ended: one that
	// cannot start is refused with all it wrote, and cheaply.
	began := m.deploys(ctx, 2*m.o.ReadyTimeout+upgradeMargin)
	if m.pred != nil {
		// It may still be answering somebody, and tableflip refuses until then.
		gone, cancel := context.WithTimeout(ctx, upgradeMargin)
		_ = m.pred.Gone(gone)
		cancel()
	}
	s, err := m.spec()
	if err != nil {
		return m.report(control.ActionUpgrade, began, m.refused(m.next, err))
	}
	s.Probe = true
	err = m.pool.Prepare(ctx, s)
	if err != nil && !errors.Is(err, workers.ErrNeedsMaster) {
		return m.report(control.ActionUpgrade, began, m.refused(s.Number, err))
	}
	fault.Point("old: probed")
	m.rotation.Lock() // else the new master would not know of it
	defer m.rotation.Unlock()
	m.upkeep.mu.Lock()
	defer m.upkeep.mu.Unlock()
	forked := time.Now()
	// tableflip looks for the name that we were started by, from where we are.
	argv0 := os.Args[0]
	os.Args[0] = s.Binary.Path
	successor, err := m.up.Upgrade(ctx, upgrade.Handover{
		Offer: m.makeOffer(), Freeze: m.freeze, Thaw: m.pool.Thaw, Hurry: m.hurried,
	})
	os.Args[0] = argv0
	if err != nil {
		m.next++ // the candidate has used the number
		return m.report(control.ActionUpgrade, began, m.refused(s.Number, err))
	}
	fault.Point("old: replaced")
	m.successor = successor
	m.replaced.Store(true)
	m.init.Tell(upgrade.NoticeReplaced)
	_ = m.socket.Close() // the successor answers now
	m.herald.replaced(pidOf(successor))
	m.o.logger.Info("replaced by a new master", "pid", pidOf(successor), "took", time.Since(forked).Round(time.Millisecond).String())
	return m.report(control.ActionUpgrade, began, control.Verdict{OK: true, Generation: s.Number})
}

func pidOf(p *os.Process) int {
	if p == nil {
		return 0
	}
	return p.Pid
}

// stderrMark parts reason and stderr where a new master reports to the old one.
const stderrMark = "\x00"

// refused makes a verdict of why a generation does not serve, and logs it.
func (m *master) refused(n int, err error) control.Verdict {
	v := control.Verdict{Generation: n, Reason: err.Error()}
	var re *workers.RefusedError
	var ue *upgrade.RefusedError
	switch {
	case errors.As(err, &re):
		v.Reason, v.Stderr = re.Reason, re.Stderr
		if !re.Probe {
			return v // the pool has told its subscribers
		}
	case errors.As(err, &ue):
		v.Reason, v.Stderr, _ = strings.Cut(ue.Reason, stderrMark)
		if v.Stderr == "" {
			v.Stderr = ue.Stderr
		}
	}
	m.log.event(workers.GenerationRefused{Generation: n, Reason: v.Reason, Stderr: v.Stderr})
	return v
}

// deploys tells that a deploy begins, which may take d until it serves, and when
// it did. What an upgrade has left to be done comes first.
func (m *master) deploys(ctx context.Context, d time.Duration) (began time.Time) {
	if m.o.Rolling {
		d += time.Duration(m.pool.Wanted()) * (m.o.ReadyTimeout + m.o.DrainTimeout + m.o.KillTimeout)
	}
	m.herald.busy(d+m.o.KillTimeout, systemd.Reloading())
	_ = m.pool.Rolled(ctx)
	m.tend()
	return time.Now()
}

// report keeps the verdict of a deploy for the status.
func (m *master) report(action string, began time.Time, v control.Verdict) control.Verdict {
	kept := v
	kept.Action, kept.TookMS = action, time.Since(began).Milliseconds()
	m.verdict.Store(&kept)
	m.herald.done()
	return v
}

func (m *master) scale(r control.ScaleRequest) control.Verdict {
	n := m.pool.Wanted() + r.Delta
	if r.Workers != nil {
		n = *r.Workers
	}
	v := control.Verdict{Action: control.ActionScale}
	if n < 1 || n > maxWorkers {
		v.Reason = fmt.Sprintf("%d workers: expected 1 to %d", n, maxWorkers)
		return v
	}
	if err := m.pool.Scale(n); err != nil {
		v.Reason = err.Error()
		return v
	}
	m.scaled.Store(int64(n))
	m.o.logger.Info("scaled", "workers", n)
	v.OK, v.Reason = true, fmt.Sprintf("workers=%d", n)
	return v
}

const maxWorkers = 1024

// hasten makes a stop wait for nothing more, also one that is to come.
func (m *master) hasten() { m.hurry.Do(func() { close(m.hurried) }) }

// stop begins the end, or hastens it. Its time counts from when it was asked
// for, though something may have had to be given up first.
func (m *master) stop(now bool, asked time.Time) control.Verdict {
	v := control.Verdict{OK: true, Action: control.ActionStop}
	t, ok := m.stopTimes.Load().(stopTimes)
	if !ok { // nothing has served yet
		t = stopTimes{m.o.StopTimeout, m.o.StopDelay}
	}
	if now {
		m.hasten()
	}
	m.stopping.Do(func() {
		m.init.Tell(upgrade.NoticeStopping)
		deadline := asked.Add(t.timeout)
		m.herald.busy(time.Until(deadline)+m.o.KillTimeout, systemd.Stopping)
		go m.shutDown(t.delay, deadline)
	})
	return v
}

// sweepShare is the part of the time for a stop, one in so many, that it may
// take to place what the kernel has queued. The rest is for the drain.
const sweepShare = 4

// Handshakes that had begun when the listeners were shunned are waited for: as
// long as there are any, but no longer than a client that does not answer is
// worth, for instance one that never meant to.
const (
	handshakeTime = 500 * time.Millisecond
	handshakePoll = 10 * time.Millisecond
)

// shutDown is the course of a stop: go on for a while, take what the kernel
// has queued, close the listeners, drain.
func (m *master) shutDown(delay time.Duration, deadline time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	m.pool.Stopping() // whatever becomes of us, they end
	m.o.logger.Info("stopping", "timeout", time.Until(deadline).Round(time.Second).String(), "delay", delay.String())
	select {
	case <-time.After(delay):
	case <-m.hurried:
	}
	go func() {
		select {
		case <-m.hurried:
			cancel() // the sweep may be waiting for room
		case <-ctx.Done():
		}
	}()
	m.unstoreAll()
	m.up.Stop() // it has copies, and a socket is closed with its last
	sweeping, done := context.WithTimeout(ctx, time.Until(deadline)/sweepShare)
	m.pool.Gather()
	sockets := m.pool.Sockets()
	for _, l := range sockets {
		_ = l.Shun() // else what comes between sweep and close is reset
	}
	m.pool.Sweep(sweeping)
	m.awaitHandshakes(sweeping)
	m.pool.Sweep(sweeping)
	done()
	for _, l := range sockets {
		_ = l.Unlisten() // workers have copies, and may be slow to give them up
		_ = l.Close()
	}
	m.pool.Stop(max(time.Until(deadline), 0), "the service stops")
	select {
	case <-m.hurried:
		m.pool.Stop(0, "the service stops now")
	case <-m.pool.Ended():
	}
}

// awaitHandshakes waits while clients are in the middle of connecting.
func (m *master) awaitHandshakes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	for {
		select {
		case <-time.After(handshakePoll): // also for what had just come out of the kernel
		case <-ctx.Done():
			return
		}
		if !slices.ContainsFunc(m.listeners, (*listener.Listener).Handshaking) {
			return
		}
	}
}

// passOn gives a wish that came too late for this master to the next one.
func (m *master) passOn(w want) {
	sig := syscall.SIGTERM
	switch w {
	case wantReload:
		sig = syscall.SIGHUP
	case wantUpgrade:
		sig = syscall.SIGUSR2
	}
	m.relay(sig)
}

// relay signals the new master.
func (m *master) relay(sig os.Signal) {
	if m.successor != nil {
		_ = m.successor.Signal(sig)
	}
}
