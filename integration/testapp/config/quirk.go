package config

// What some applications do and a framework must bear (Config.Quirk).
const (
	QuirkChdir  = "chdir"               // changes to / before Run
	QuirkTalks  = "talks"               // writes 200 KiB to stderr before Run
	QuirkCloses = "closes-at-the-drain" // Serve closes its listeners as soon as its context is done
)

// TalkSize is how much QuirkTalks writes: more than a pipe holds.
const TalkSize = 200 << 10
