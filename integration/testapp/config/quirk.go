package config

import "time"

// What some applications do and a framework must bear (Config.Quirk).
const (
	QuirkChdir  = "chdir"               // changes to / before Run
	QuirkTalks  = "talks"               // writes 200 KiB to stderr before Run
	QuirkCloses = "closes-at-the-drain" // Serve closes its listeners as soon as its context is done
	QuirkSlow   = "slow"                // takes SlowStart before Run, after a line: "testapp: a slow master"
)

// SlowStart is how long QuirkSlow takes.
const SlowStart = 300 * time.Millisecond

// TalkSize is how much QuirkTalks writes: more than a pipe holds.
const TalkSize = 200 << 10
