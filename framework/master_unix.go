//go:build unix

package framework

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	group "github.com/oklog/run"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/fault"
	"github.com/baton-go/baton/internal/rundir"
	"github.com/baton-go/baton/internal/tickets"
	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/upgrade"
	"github.com/baton-go/baton/workers"
)

// master is the process that owns the listeners. Its parts run as a group:
// when one ends, so do the others.
type master struct {
	o       *options
	cpus    int
	started time.Time
	log     logger

	up        *upgrade.Upgrader
	pred      *upgrade.Predecessor
	predPID   int
	init      *upgrade.Init // restarts this process should it crash; nil outside of containers
	offer     offer
	dir       *rundir.Dir
	lock      *rundir.Lock
	listeners []*listener.Listener
	bound     map[*listener.Listener]bool // by this process, not inherited
	inherits  bool                        // the lock and the control socket
	dropped   []socketFile                // of listeners that the predecessor has and this release has not
	orphans   *orphanage                  // of a master that was killed; nil if there are none
	foreign   error                       // those of it that serve and cannot be adopted; nil: none
	socket    *net.UnixListener
	leash     *os.File // see openLeash; nil if there is none

	herald    *herald
	activated []activation               // sockets of systemd's
	passed    map[int]*listener.Listener // those, by the place of their listener, until it is claimed
	storing   sync.Mutex
	unstored  bool                // nothing is stored any more
	stored    map[string]*os.File // listeners of a master that was killed, by key, until they are claimed

	rotation sync.Mutex // of the tickets' keys
	tickets  *tickets.Ring
	// ticketFile is what systemd has of them; nil if it has nothing.
	ticketFile *os.File

	pool    *workers.Pool
	arbiter *arbiter
	control *control.Server
	upkeep  upkeep

	// The jobs', which run one at a time.
	next      int         // number of the next generation
	env       environment // of the generation being started
	times     stopTimes   // that it asks for
	asked     int         // workers that it asks for
	pinnedEnv []string    // of a release that served before, while it is started again
	upgrades  int         // masters before this one
	successor *os.Process
	failure   error // why the first generation did not start

	binary     *workers.Binary                 // this process'
	verdict    atomic.Pointer[control.Verdict] // of the last deploy
	scaled     atomic.Int64                    // workers as an operator set them; 0: as the release says
	stopTimes  atomic.Value                    // stopTimes of the serving generation
	took       atomic.Bool                     // this process is the master
	replaced   atomic.Bool                     // by a new master, which has all that is handed over
	anew       bool                            // its first generation is about to start, with nobody to take over from
	charge     sync.Once                       // this process becomes the master
	mayControl chan struct{}                   // closed when it is
	noControl  chan struct{}                   // closed at the end
	stopping   sync.Once
	hurry      sync.Once
	hurried    chan struct{} // closed by a stop that does not wait
}

type stopTimes struct{ timeout, delay time.Duration }

// upgradeMargin is what a new master gets beyond the time that its workers
// have to be ready.
const upgradeMargin = 10 * time.Second

// cancelMargin is what a new master that is not wanted any more gets beyond the
// time that its workers have to leave.
const cancelMargin = 2 * time.Second

func runMaster(o *options, _ serveFunc) (err error) {
	logs, flush := asyncLogger(o.logger)
	defer flush()
	o.logger = logs
	m := &master{
		bound: map[*listener.Listener]bool{}, passed: map[int]*listener.Listener{}, stored: map[string]*os.File{},
		o: o, started: time.Now(), log: logger{o.logger}, cpus: usableCPUs(), next: 1,
		mayControl: make(chan struct{}), noControl: make(chan struct{}), hurried: make(chan struct{}),
	}
	workers.BePatient()
	o.logChoices()
	if err := checkFiles(o, m.cpus); err != nil {
		return err
	}
	if problems := o.incapable(o.settings, o.source("Accept", string(o.Accept))); len(problems) > 0 {
		return configError(problems)
	}
	makeSpareThreads(spareThreads)
	signals := catchMasterSignals()
	defer func() {
		if !m.replaced.Load() {
			signals.stop()
		}
	}()
	if m.up, err = upgrade.New(upgrade.Options{
		Timeout: o.ReadyTimeout + upgradeMargin, CancelTimeout: o.KillTimeout + cancelMargin,
	}); err != nil {
		return fmt.Errorf("baton: %w", err)
	}
	m.pred, m.init = m.up.Predecessor(), m.up.Init()
	if m.pred != nil {
		fault.Point("new: started")
	}
	m.herald = newHerald(o.inherited["NOTIFY_SOCKET"], o.logger, m.pred != nil)
	m.herald.look = m.describe
	if err := m.claim(); err != nil {
		if m.pred != nil {
			m.pred.Refuse(err.Error())
		}
		m.release()
		return err
	}
	if m.pred == nil {
		m.init.Tell(upgrade.NoticeHello)
	} else {
		fault.Point("new: claimed")
	}
	m.scaled.Store(int64(m.offer.Override))
	if path, err := workers.FindBinary(os.Args[0], workingDir); err == nil {
		m.binary, _ = workers.Pin(path) // for the status only
	}
	m.pool = workers.New(workers.Config{
		Argv: slices.Clone(os.Args), Dir: workingDir, Stderr: upgrade.Stderr(), Listeners: m.listeners, Workers: m.offer.Override,
		OnEvent: m.event, OnFailing: m.failing, Account: m.o.account, Options: m.workerOptions,
		Policies: m.o.policyNamed,
	})
	m.openTickets()
	m.shareTickets()
	m.arbiter = newArbiter(m)
	m.control = control.NewServer(backend{m})

	var g group.Group
	{
		g.Add(m.pool.Run, func(error) {
			if m.replaced.Load() {
				m.pool.Abandon()
			} else {
				m.pool.Stop(m.o.KillTimeout, "the master ends")
			}
		})
	}
	{
		quit := make(chan struct{})
		g.Add(func() error {
			if v := m.arbiter.run(quit); !m.replaced.Load() && !v.OK {
				return m.failure
			}
			return nil
		}, func(error) { close(quit) })
	}
	{
		quit := make(chan struct{})
		g.Add(func() error { return m.take(signals, quit) }, func(error) { close(quit) })
	}
	{
		quit := make(chan struct{})
		g.Add(func() error { return m.herald.run(quit) }, func(error) { close(quit) })
	}
	{
		quit := make(chan struct{})
		g.Add(func() error { return m.rotateTickets(quit) }, func(error) { close(quit) })
	}
	{
		quit := make(chan struct{})
		g.Add(func() error { return m.keepUp(quit) }, func(error) { close(quit) })
	}
	g.Add(m.serveControl, func(error) { m.stopControl() })
	err = g.Run()
	m.release()
	if m.pred != nil && m.took.Load() && !m.replaced.Load() {
		m.init.Adopted()
	}
	if err != nil && !errors.Is(err, ErrNotReady) {
		err = fmt.Errorf("baton: %w", err)
	}
	return err
}

// claim takes what a master must have alone: the runtime directory and the
// listeners. From a predecessor it inherits them.
func (m *master) claim() error {
	if m.pred != nil {
		if err := m.readOffer(); err != nil {
			return fmt.Errorf("baton: %w", err)
		}
	}
	if err := m.claimPassed(); err != nil {
		return err
	}
	if err := m.openDir(); err != nil {
		return err
	}
	if err := m.claimDir(); err != nil {
		return err
	}
	if err := m.openLeash(); err != nil {
		return fmt.Errorf("baton: leash: %w", err)
	}
	if m.pred == nil {
		fault.Point("crash: locked")
		m.findOrphans()
		fault.Point("crash: workers came")
	}
	if err := m.claimListeners(); err != nil {
		return err
	}
	if m.pred == nil {
		m.announce()
	}
	return nil
}

// announce tells which addresses are listened on: now, or for a new master once
// it has taken over.
func (m *master) announce() {
	for _, l := range m.listeners {
		if !m.bound[l] {
			continue // as before
		}
		m.o.logger.Info("listening", "listener", l.Name(), "address", l.Addr().String())
	}
	for _, f := range m.o.onListen {
		for _, l := range m.listeners {
			f(l.Name(), l.Addr())
		}
	}
}

// event logs what happens in the pool, and tells the application.
func (m *master) event(e workers.Event) {
	m.log.event(e)
	m.herald.changed()
	for _, f := range m.o.onEvent {
		f(e)
	}
}

func (m *master) getenv(name string) string { return m.o.env[name] }

// openDir opens the runtime directory, once it is known that the pid file can be
// written, too.
func (m *master) openDir() error {
	exe := filepath.Base(os.Args[0])
	path, err := rundir.Resolve(m.o.RuntimeDir, exe, listener.Keys(m.o.Listeners), m.getenv, os.Getuid())
	if m.pred != nil && m.o.RuntimeDir == "" && m.offer.DefaultDir {
		path, err = m.offer.RuntimeDir, nil // its name comes from the listeners of the first start
	}
	if err == nil {
		if problem := m.o.pidFileProblem(path); problem != "" {
			return configError([]string{problem})
		}
		m.dir, err = rundir.Open(path)
	}
	if err == nil && m.o.account != nil && m.o.Orphans {
		if problem := m.dir.Admit(int(m.o.account.UID)); problem != nil {
			return configError([]string{m.o.source("Orphans", "true") + ": " + problem.Error()})
		}
	}
	switch said, ok := m.o.said["RuntimeDir"]; {
	case err == nil:
		return nil
	case ok:
		return configError([]string{said + ": " + err.Error()})
	}
	return configError([]string{err.Error()})
}

// claimDir takes the lock and the control socket of the runtime directory.
func (m *master) claimDir() error {
	if m.pred != nil && m.offer.RuntimeDir == m.dir.Path() {
		lock, err := m.up.Inherit(fileLock)
		if err == nil && lock != nil {
			m.lock, err = rundir.AdoptLock(m.dir, lock)
		}
		if err != nil {
			return fmt.Errorf("baton: lock of the predecessor: %w", err)
		}
		socket, err := m.up.Inherit(fileControl)
		if err == nil && socket != nil {
			m.socket, err = control.ListenFile(socket)
		}
		if err != nil {
			return fmt.Errorf("baton: control socket of the predecessor: %w", err)
		}
		if m.offer.MadeDir {
			m.dir.Inherit()
		}
		m.inherits = true
	}
	if m.lock == nil {
		lock, err := m.takeLock()
		var held *rundir.HeldError
		if errors.As(err, &held) {
			return fmt.Errorf("%w: %w", ErrAlreadyRunning, err)
		}
		if err != nil {
			return fmt.Errorf("baton: %w", err)
		}
		m.lock = lock
	}
	if m.socket == nil {
		socket, err := control.Listen(m.dir.Socket())
		if err != nil {
			return fmt.Errorf("baton: control socket: %w", err)
		}
		m.socket = socket
	}
	m.upkeep.socket = fileAt(m.dir.Socket())
	socket, err := m.socket.File()
	if err != nil {
		return fmt.Errorf("baton: control socket: %w", err)
	}
	defer socket.Close()
	return errors.Join(m.up.Keep(fileLock, m.lock.File()), m.up.Keep(fileControl, socket))
}

// claimListeners inherits or binds the listeners, and keeps them for the next
// master.
func (m *master) claimListeners() error {
	keys := listener.Keys(m.o.Listeners)
	inherited := map[string]*listener.Listener{}
	for i, key := range listener.Keys(m.offer.Listeners) {
		if slices.ContainsFunc(m.offer.Activated, func(a activation) bool { return a.Listener == i }) {
			continue // systemd's
		}
		at := slices.Index(keys, key)
		if at < 0 {
			// Not taken from tableflip, for that would keep it open.
			m.dropped = append(m.dropped, leftover(m.offer.Listeners[i]))
			continue
		}
		f, err := m.up.Inherit(fileListener + key)
		if err == nil && f == nil {
			continue
		}
		var l *listener.Listener
		if err == nil {
			l, err = listener.FromFile(m.o.Listeners[at], f) // under its new name
		}
		if err != nil {
			return fmt.Errorf("baton: listener %s of the predecessor: %w", key, err)
		}
		inherited[key] = l
	}
	m.dropStored(keys)
	m.dropped = append(m.dropped, m.abandonedFiles(keys)...)
	for i, spec := range m.o.Listeners {
		if l := m.passed[i]; l != nil {
			delete(m.passed, i)
			m.bound[l] = m.pred == nil
			m.listeners = append(m.listeners, l)
			m.haveListener(keys[i])
			continue
		}
		l := inherited[keys[i]]
		delete(inherited, keys[i])
		if l == nil {
			if l = m.storedListener(keys[i], spec); l != nil {
				m.haveListener(keys[i])
			}
		}
		if l == nil {
			var err error
			if l, err = m.adoptListener(keys[i], spec); err != nil {
				return fmt.Errorf("baton: listener %s of the last master: %w", keys[i], err)
			}
		}
		if l == nil {
			var err error
			if l, err = listener.Bind(spec); err != nil && m.foreign != nil {
				return fmt.Errorf("%w: %w; %w", ErrIncompatible, m.foreign, err)
			} else if err != nil {
				return fmt.Errorf("baton: %w", err)
			}
			m.bound[l] = true
		}
		m.listeners = append(m.listeners, l)
		if err := m.up.Keep(fileListener+keys[i], l.File()); err != nil {
			return fmt.Errorf("baton: %w", err)
		}
	}
	if m.orphans != nil {
		m.orphans.DropListeners()
	}
	return nil
}

// socketFile is a file that a Unix listener of the predecessor is bound to.
type socketFile struct {
	path string
	info os.FileInfo // nil: there is no such file
}

func leftover(s listener.Spec) socketFile {
	if s.Network != "unix" {
		return socketFile{}
	}
	return fileAt(s.Address)
}

func fileAt(path string) socketFile {
	info, _ := os.Lstat(path)
	return socketFile{path, info}
}

// remove removes the file, unless somebody has put another in its place.
func (f socketFile) remove() {
	if f.info == nil {
		return
	}
	if info, err := os.Lstat(f.path); err == nil && os.SameFile(f.info, info) {
		_ = os.Remove(f.path)
	}
}

// release gives up what claim took: for good, or to the master that has it now.
// One that never became the master gives back what was others' before.
func (m *master) release() {
	replaced, candidate := m.replaced.Load(), m.pred != nil && !m.took.Load()
	if !replaced && m.took.Load() {
		m.unstoreAll()
	}
	for _, l := range m.passed {
		_ = l.Release()
	}
	for _, f := range m.stored {
		_ = f.Close()
	}
	if m.ticketFile != nil {
		_ = m.ticketFile.Close()
	}
	for _, l := range m.listeners {
		if replaced || !m.took.Load() && !m.bound[l] {
			_ = l.Release()
		} else {
			_ = l.Close()
		}
	}
	if m.socket != nil {
		_ = m.socket.Close()
	}
	if m.leash != nil {
		_ = m.leash.Close()
	}
	left := m.closeOrphanage()
	if m.lock != nil {
		if replaced || candidate && m.inherits {
			_ = m.lock.Close()
		} else {
			if m.o.PIDFile != "" {
				_ = rundir.RemovePIDFile(m.o.PIDFile, os.Getpid())
			}
			_, _ = m.restoreLock() // or what is there might be another's
			if m.dir.Holds() && !left && (m.foreign == nil || m.took.Load()) {
				_ = m.dir.RemoveRecord()
				_ = m.dir.Tidy()
			}
			if m.dir.Holds() {
				_ = m.dir.Remove()
			}
			_ = m.lock.Release()
		}
	}
	if m.binary != nil {
		_ = m.binary.Close()
	}
}
