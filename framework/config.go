package framework

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
	"github.com/baton-go/baton/workers/dispatch"
)

// settings is the part of the options that travels: each binary resolves its
// own, and a worker's Hello carries them to the master, as JSON.
type settings struct {
	generationSettings
	masterSettings
}

// generationSettings belong to a generation and are in force while it serves.
type generationSettings struct {
	Workers      int // 0: one per usable CPU of the master
	DrainTimeout time.Duration
	StopTimeout  time.Duration
	StopDelay    time.Duration
	ReadyTimeout time.Duration
	KillTimeout  time.Duration
	HangTimeout  time.Duration // 0: never
	GiveUpAfter  time.Duration // 0: never
	BakeTime     time.Duration // 0: never rolled back
	IdleGrace    time.Duration
	DrainSpread  time.Duration // 0: all at once
	MaxDraining  int
	Rolling      bool
	Preempt      bool     // workers preempt others
	Adopts       []string // names of the listeners with an OnAdopt, in order
	Dispatch     string   // name of the policy

	Accept  listener.AcceptMode            // of listeners that have none of their own
	Accepts map[string]listener.AcceptMode // their own, by listener name

	OrphanTimeout time.Duration // 0: never
}

// adopted returns the keys of the listeners that a generation adopts from.
func (s settings) adopted() (keys []string) {
	for i, key := range listener.Keys(s.Listeners) {
		if slices.Contains(s.Adopts, s.Listeners[i].Name) {
			keys = append(keys, key)
		}
	}
	return keys
}

// orphansIfSupervised is OrphanTimeout where nobody has said anything: 0, but
// supervisedOrphanTimeout where somebody starts a new master.
const (
	orphansIfSupervised     time.Duration = math.MinInt64
	supervisedOrphanTimeout               = 5 * time.Minute
)

// masterSettings belong to the master. Another value needs another master.
type masterSettings struct {
	Listeners  []listener.Spec
	RuntimeDir string // as configured; "": the default
	PIDFile    string // "": none
	User       string // of the workers; "": the master's own
	Orphans    bool   // workers of User may hold listeners, too
	// EnvFile is here because the master reads it, for the generations that it
	// starts: one with another file was given the wrong environment.
	EnvFile string // "": none
}

// differs names the fields that other has otherwise, in a fixed order; none
// means that this master can serve for other. The order of the listeners
// counts, since they are known by their place.
func (m masterSettings) differs(other masterSettings) []string {
	var fields []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"Listeners", slices.Equal(m.Listeners, other.Listeners)},
		{"RuntimeDir", m.RuntimeDir == other.RuntimeDir},
		{"PIDFile", m.PIDFile == other.PIDFile},
		{"User", m.User == other.User},
		{"Orphans", m.Orphans == other.Orphans},
		{"EnvFile", m.EnvFile == other.EnvFile},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// options is everything that was chosen, by code, environment and EnvFile.
type options struct {
	settings

	account    *workers.Account        // User, if it is not our own
	userEnv    map[string]string       // its name and home
	supervised bool                    // somebody starts the master again when it dies
	single     bool                    // no master, no workers
	handlers   map[string]http.Handler // by listener name, beside the main one
	tlsAsked   []*tlsSource            // in the order of the options
	tls        map[string]*tlsSource   // by listener name
	noMove     []string                // names of listeners
	logger     *slog.Logger            // never nil
	httpServer []func(*http.Server)
	stopOn     []context.Context
	onEvent    []func(workers.Event)
	onListen   []func(name string, a net.Addr)
	adopters   map[string]func(net.Conn, []byte) // by listener name
	policy     dispatch.Policy                   // of Dispatch, whatever the environment says; may be nil

	readyCheck  string // a path; "": none
	readyChecks []func(context.Context) error

	env       environment // the inherited variables with those of EnvFile
	overrides []string    // for the log: "workers=8 from BATON_WORKERS, code says 2"

	inherited environment       // env without EnvFile
	said      map[string]string // option to what set it, as it was written
	problems  []string
}

// defaultListener is the name of the listener that there is without Listen.
const defaultListener = "default"

func defaultSettings() generationSettings {
	return generationSettings{
		DrainTimeout: 30 * time.Second,
		StopTimeout:  25 * time.Second,
		ReadyTimeout: 30 * time.Second,
		KillTimeout:  5 * time.Second,
		HangTimeout:  30 * time.Second,
		BakeTime:     10 * time.Second,
		IdleGrace:    5 * time.Second,
		DrainSpread:  5 * time.Second,
		MaxDraining:  8,
		Dispatch:     dispatch.RoundRobin().Name(),
		Accept:       listener.AcceptByMaster,

		OrphanTimeout: orphansIfSupervised,
	}
}

func defaultOptions(env environment) *options {
	return &options{
		settings:   settings{generationSettings: defaultSettings()},
		handlers:   map[string]http.Handler{},
		adopters:   map[string]func(net.Conn, []byte){},
		tls:        map[string]*tlsSource{},
		logger:     slog.Default(),
		env:        env.clone(),
		inherited:  env.clone(),
		said:       map[string]string{},
		supervised: env["NOTIFY_SOCKET"] != "",
	}
}

// resolve turns what code, environment and EnvFile say into options that are
// valid throughout, or into one error that wraps ErrConfig and has a line for
// every problem. env is the inherited environment.
//
// checks are what only one way to serve requires.
//
// It binds, forks and changes nothing, so every role can call it.
func resolve(opts []Option, env environment, checks ...func(*options)) (*options, error) {
	o := defaultOptions(env)
	for i, opt := range opts {
		if opt == nil {
			o.problem("option %d of %d is nil: expected an Option", i+1, len(opts))
			continue
		}
		opt(o)
	}

	envFileVar.apply(o, env)
	if mark == nil {
		merged, problems := readEnvFile(o.EnvFile, env)
		for _, p := range problems {
			o.problem("%s: %s", o.source("EnvFile", strconv.Quote(o.EnvFile)), p)
		}
		o.env = merged
	} // A worker has it from its master, as it was when its generation began.
	for _, v := range variables {
		v.apply(o, o.env)
	}

	o.checkTimes()
	o.checkListeners()
	o.checkNames()
	o.checkTLS()
	o.checkUser()
	o.takeAccepts()
	o.checkAccept()
	for _, check := range checks {
		check(o)
	}
	if text, ok := o.env.lookup("GOMEMLIMIT"); ok {
		// The runtime of a worker would die of it with a crash trace.
		if _, ok := parseMemory(text); !ok {
			o.problem(`GOMEMLIMIT=%q%s: expected bytes as in "512MiB", with B, KiB, MiB, GiB, TiB or no unit, or "off"`,
				text, o.inFile("GOMEMLIMIT"))
		}
	}

	if len(o.problems) > 0 {
		return nil, configError(o.problems)
	}
	return o, nil
}

// configError is ErrConfig with a line for each problem.
func configError(problems []string) error {
	return fmt.Errorf("%w:\n%s", ErrConfig, strings.Join(problems, "\n"))
}

// logChoices logs what the environment has chosen, and what it seems to mean to.
func (o *options) logChoices() {
	for _, line := range o.overrides {
		o.logger.Info(line)
	}
	for _, line := range o.unknownVariables() {
		o.logger.Warn(line)
	}
}

// source is what set an option, as it was written, or its default.
func (o *options) source(option, value string) string {
	if said, ok := o.said[option]; ok {
		return said
	}
	return fmt.Sprintf("%s(%s, the default)", option, value)
}

// inFile is " in <EnvFile>" if that is where a variable's value comes from.
func (o *options) inFile(name string) string {
	if o.env[name] == o.inherited[name] {
		return ""
	}
	return " in " + o.EnvFile
}

func (o *options) checkTimes() {
	if o.StopDelay > 0 && o.StopDelay >= o.StopTimeout {
		o.problem("%s with %s: expected StopDelay to be shorter than StopTimeout, which includes it",
			o.source("StopDelay", o.StopDelay.String()), o.source("StopTimeout", o.StopTimeout.String()))
	}
}

// checkListeners adds the default listener if there is no other.
func (o *options) checkListeners() {
	if len(o.Listeners) == 0 {
		port := "8080"
		if text, ok := o.env.lookup("PORT"); ok {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil {
				o.problem("PORT=%q%s: expected a port number from 0 to 65535", text, o.inFile("PORT"))
				n = 0
			}
			port = strconv.FormatUint(n, 10)
		}
		o.Listeners = []listener.Spec{listener.NewSpec("tcp", ":"+port, listener.Name(defaultListener))}
	}
	if err := listener.ValidateAll(o.Listeners); err != nil {
		for line := range strings.Lines(err.Error()) {
			if line = strings.TrimSpace(line); line != "" {
				o.problem("%s", line)
			}
		}
	}
}

// listenerNames are in the order of the Listen options.
func (o *options) listenerNames() (names []string) {
	for _, s := range o.Listeners {
		names = append(names, s.Name)
	}
	return names
}

// checkNames looks for the listeners that other options name.
func (o *options) checkNames() {
	known := o.listenerNames()
	check := func(option, name string) {
		if !slices.Contains(known, name) {
			o.problem("%s(%q): no listener has that name: expected one of %q", option, name, known)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.handlers)) {
		check("Handle", name)
	}
	for _, name := range o.noMove {
		check("NoMove", name)
	}
	o.Adopts = slices.Sorted(maps.Keys(o.adopters))
	for _, name := range o.Adopts {
		check("OnAdopt", name)
	}
}
