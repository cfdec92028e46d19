package upgrade

import (
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// IsInit says whether this process is PID 1, the first one of a container.
func IsInit() bool { return os.Getpid() == 1 }

// initSignals are all that init passes on.
var initSignals = make(chan os.Signal, 64)

// A HUP that comes while main gets as far as RunInit would end the container:
// as PID 1 a Go program exits. TERM and INT may.
func init() {
	if IsInit() {
		signal.Notify(initSignals, syscall.SIGHUP)
	}
}

// InitOptions of RunInit.
type InitOptions struct {
	Argv   []string
	Dir    string                 // in which masters start
	Binary func() (string, error) // what to execute, asked at each start

	// StopTimeout bounds the wait for what a crashed master has left, at the end.
	StopTimeout time.Duration

	Log *slog.Logger
}

// RunInit makes this process the init of its container. It starts a master,
// collects everybody who ends, passes signals on, follows the master through
// upgrades and starts another when it crashes. It returns the exit status of
// the service, with which this process must exit; an error says that no master
// could be started at all.
//
// Nothing else in this process may wait for children.
func RunInit(o InitOptions) (status int, err error) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	signal.Notify(initSignals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM,
		syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTTIN, syscall.SIGTTOU)
	i := &initProcess{o: o, log: o.Log.With("role", "init", "pid", os.Getpid()), sigchld: died, timer: time.NewTimer(0)}
	<-i.timer.C
	defer i.hangUp()
	if err := i.start(); err != nil {
		return 0, err
	}
	i.run()
	i.linger()
	return i.status, nil
}

// initProcess is an init at work.
type initProcess struct {
	course
	o       InitOptions
	log     *slog.Logger
	sigchld chan os.Signal
	timer   *time.Timer
	line    *line
	master  *masterProcess // the one that counts, dead or alive; nil: its end has been seen
	over    bool
}

func (i *initProcess) run() {
	for !i.over {
		var dead <-chan struct{}
		if i.master != nil {
			dead = i.master.died
		}
		select {
		case <-i.sigchld:
			i.reap()
		case <-dead:
			p := i.master
			i.reap()
			i.lost(p)
		case <-i.line.wake:
			i.listen()
		case sig := <-initSignals:
			i.pass(sig.(syscall.Signal))
		case <-i.timer.C:
			i.happens(sawTime)
		}
	}
}

// happens does what the course says.
func (i *initProcess) happens(e initEvent) {
	was := i.phase
	s := i.on(e, time.Now())
	if i.phase != was {
		i.timer.Stop()
	}
	switch s.do {
	case wake:
		i.timer.Reset(s.in)
		if i.phase == initPausing {
			i.log.Info("the master is started again", "in", s.in.Round(time.Millisecond).String())
		}
	case start:
		if err := i.start(); err != nil {
			i.log.Error("no master could be started", "reason", err.Error())
			i.extinct, i.status = true, 1
			i.happens(sawCrash)
		}
	case terminate:
		i.log.Warn("the master does not hear that it is to stop: TERM")
		_ = i.master.signal(syscall.SIGTERM)
	case end:
		i.over = true
	}
}

// start starts a master on a line of its own.
func (i *initProcess) start() error {
	i.hangUp()
	i.started = time.Now()
	l, theirs, err := newLine()
	if err != nil {
		return err
	}
	defer unix.Close(theirs)
	i.line = l
	path, err := i.o.Binary()
	if err != nil {
		return err
	}
	if i.master, err = startMaster(path, i.o.Argv, i.o.Dir, theirs); err != nil {
		return err
	}
	i.log.Info("master started", "master", i.master.pid)
	return nil
}

func (i *initProcess) hangUp() {
	if i.line != nil {
		i.line.close()
	}
}

// listen takes what masters say.
func (i *initProcess) listen() {
	heard, ended := i.line.take()
	for _, n := range heard {
		switch n.say {
		case NoticeHello:
			if i.master == nil || i.master.pid != n.pid {
				i.master = findMaster(n.pid)
				i.log.Info("another master", "master", n.pid)
			}
			i.happens(sawHello)
		case NoticeServes:
			i.served, i.crashes = true, 0
		case NoticeStopping:
			i.asked = true
		case NoticeReplaced:
			if i.master != nil && i.master.pid == n.pid {
				i.happens(sawReplaced)
			}
		}
	}
	if ended && !i.extinct {
		i.happens(sawExtinct)
	}
}

// reap collects everybody who has ended. It is the one place that waits.
func (i *initProcess) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		i.listen() // what was said before the end
		if i.master != nil && i.master.pid == pid {
			i.ended(ws)
		}
	}
}

// lost is called when p is dead and may not be ours to collect: if the master
// before it did, nobody can say how it ended.
func (i *initProcess) lost(p *masterProcess) {
	i.listen()
	if i.master != p {
		return
	}
	if isChild(p.pid) { // somebody traces it, and lets it go later
		p.died = nil
		return
	}
	i.status = 1
	i.dead("unknown", sawCrash)
}

func isChild(pid int) bool {
	return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil
}

const (
	panicked = 2  // what Go programs exit with when they panic
	tempFail = 75 // EX_TEMPFAIL: something is in the way that may pass
)

func (i *initProcess) ended(ws syscall.WaitStatus) {
	reason, e := "exit status "+strconv.Itoa(ws.ExitStatus()), sawExit
	i.status = ws.ExitStatus()
	switch {
	case ws.Signaled():
		reason, e = "signal: "+ws.Signal().String(), sawCrash
		i.status = 128 + int(ws.Signal())
	case i.status == panicked, i.status == tempFail && i.served:
		e = sawCrash
	}
	i.dead(reason, e)
}

func (i *initProcess) dead(reason string, e initEvent) {
	if i.phase == initPassing { // it has left, as it said
		i.master = nil
		return
	}
	if e == sawCrash {
		i.log.Error("the master died", "master", i.master.pid, "reason", reason)
	}
	i.master = nil
	i.happens(e)
}

// pass gives a signal to the master.
func (i *initProcess) pass(sig syscall.Signal) {
	var err error
	if sig == syscall.SIGQUIT {
		// The runtime's, which dumps goroutines also when nothing else works.
		err = i.master.signal(sig)
	} else {
		err = i.line.signal(sig)
	}
	if err != nil {
		i.log.Warn("signal not passed on", "signal", sig.String(), "reason", err.Error())
	}
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
		i.happens(sawStop)
	}
}

// linger gives what a master has left behind time to finish. A service that
// ended well has left nobody.
func (i *initProcess) linger() {
	if i.status == 0 || !IsInit() {
		return
	}
	_ = syscall.Kill(-1, syscall.SIGTERM) // everybody else here
	late := time.After(i.o.StopTimeout)
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR || err == nil && pid > 0:
			continue
		case err != nil: // ECHILD
			return
		}
		select {
		case <-i.sigchld:
		case sig := <-initSignals:
			if sig == syscall.SIGTERM || sig == syscall.SIGINT {
				return
			}
		case <-late:
			return
		}
	}
}
