package upgrade

import (
	"math"
	"time"
)

// The course of a container: what init does when something happens to its
// master. It decides and does nothing itself; its state belongs to one
// goroutine, that of RunInit.

// initPhase is how it stands between init and the master.
type initPhase int

const (
	initStarting initPhase = iota // a master was started and has not said hello
	initRunning                   // the master has said hello
	initPassing                   // it was replaced, and the new one has not said hello
	initOrphaned                  // it crashed; who is left of its line may be taking over
	initPausing                   // nobody is left; the next start waits
)

var initPhases = [...]string{"starting", "running", "passing", "orphaned", "pausing"}

func (p initPhase) String() string { return initPhases[p] }

// initEvent is what happens.
type initEvent int

const (
	sawHello    initEvent = iota // a master can take signals, and is the one that counts
	sawReplaced                  // the master says that another has taken over
	sawCrash                     // the master was killed, has panicked, or nobody knows
	sawExit                      // it exited with any other status
	sawExtinct                   // no process of its line is left, candidates included
	sawTime                      // what was waited for is over
	sawStop                      // the container is to stop
)

var initEvents = [...]string{"hello", "replaced", "crash", "exit", "extinct", "time", "stop"}

func (e initEvent) String() string { return initEvents[e] }

// initAction is what is done about it.
type initAction int

const (
	ignore initAction = iota
	follow            // the sender is the master now
	letGo             // what becomes of the old one does not matter any more
	look              // restart it, but not beside one that is taking over
	pause             // restart it after a while; end, if it was to stop
	launch            // start one
	press             // a stop is not heard: wait for a while, then send a signal
	finish            // the container ends
)

// initTable is the whole of it.
var initTable = [...][7]initAction{
	//            hello   replaced crash   exit    extinct time    stop
	initStarting: {follow, ignore, look, finish, ignore, press, press},
	initRunning:  {follow, letGo, look, finish, ignore, ignore, ignore},
	initPassing:  {follow, ignore, ignore, ignore, pause, ignore, ignore},
	initOrphaned: {follow, ignore, ignore, ignore, pause, launch, ignore},
	initPausing:  {ignore, ignore, ignore, ignore, ignore, launch, finish},
}

const (
	firstBackoff    = 200 * time.Millisecond
	maxBackoff      = 10 * time.Second
	failureHalfLife = 30 * time.Second

	// firstTries is how often a master may crash as long as none has served.
	// What has never worked is for whoever started the container to see.
	firstTries = 5

	// helloTime is how long a master has to say hello when it is to stop: one
	// whose main does something else for ever never hears of it.
	helloTime = 5 * time.Second

	// lineTime is how long the processes of a crashed master's line are waited
	// for. A candidate that hears of the crash has ended or taken over long
	// before: stepTimeout and forsakenTime, and some.
	lineTime = 20 * time.Second
)

// deed is what init has to do.
type deed int

const (
	wait deed = iota // nothing, until something else happens
	wake             // say sawTime after step.in
	start
	terminate // send a TERM that needs nobody to listen
	end
)

type step struct {
	do deed
	in time.Duration
}

type course struct {
	phase   initPhase
	asked   bool // to stop
	pressed bool // and waiting for a master that has not said hello
	served  bool // a master has, at some time
	extinct bool // nobody of the line is left
	status  int  // how the last master ended

	crashes  int // since one served
	failures float64
	failed   time.Time // when failures was right
	started  time.Time // the last master
	again    time.Time // when the next one may start
}

// on takes what happened. The status of a master that ended is in c.status.
func (c *course) on(e initEvent, now time.Time) step {
	switch e {
	case sawExtinct:
		c.extinct = true
	case sawStop:
		defer func() { c.asked = true }()
	}
	switch initTable[c.phase][e] {
	case follow:
		c.phase, c.started = initRunning, now
	case letGo:
		c.phase = initPassing
		c.status = 1 // nobody will tell how the new one ended, if it never says hello
	case look:
		c.crashed(now)
		if c.extinct {
			return c.pause(now)
		}
		c.phase = initOrphaned
		return step{do: wake, in: lineTime}
	case pause:
		if c.phase == initPassing {
			c.crashed(now)
		}
		return c.pause(now)
	case launch:
		if c.asked {
			return step{do: end}
		}
		c.phase, c.started, c.extinct, c.pressed = initStarting, now, false, false
		return step{do: start}
	case press:
		if c.pressed {
			return step{do: terminate}
		}
		c.pressed = true
		return step{do: wake, in: helloTime}
	case finish:
		return step{do: end}
	}
	return step{do: wait}
}

// crashed decides when the next master may start. The budget is the workers':
// a count of failures that decays, to which a master that lived for long adds
// little.
func (c *course) crashed(now time.Time) {
	if !c.failed.IsZero() {
		c.failures *= math.Exp2(-now.Sub(c.failed).Seconds() / failureHalfLife.Seconds())
	}
	c.failed = now
	c.failures += math.Exp2(-now.Sub(c.started).Seconds())
	c.crashes++
	backoff := time.Duration(float64(firstBackoff) * math.Exp2(min(c.failures-1, 20)))
	c.again = now.Add(min(max(backoff, firstBackoff), maxBackoff))
}

// pause waits until the next master may start.
func (c *course) pause(now time.Time) step {
	if c.asked || !c.served && c.crashes >= firstTries {
		return step{do: end}
	}
	c.phase = initPausing
	return step{do: wake, in: max(c.again.Sub(now), 0)}
}
