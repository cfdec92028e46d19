package framework

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// environment is a snapshot of variables. The process' own environment is read
// once and never written: what a generation sees is decided in one place.
type environment map[string]string

// currentEnvironment is the snapshot of the process.
func currentEnvironment() environment { return newEnvironment(os.Environ()) }

// newEnvironment reads NAME=value strings. Of several with one name the first
// counts, as in package os.
func newEnvironment(list []string) environment {
	env := make(environment, len(list))
	for _, s := range list {
		if s == "" {
			continue
		}
		// From the second byte: Windows has names such as "=C:".
		i := strings.IndexByte(s[1:], '=')
		if i < 0 {
			continue
		}
		if name := s[:i+1]; !env.has(name) {
			env[name] = s[i+2:]
		}
	}
	return env
}

func (e environment) has(name string) bool { _, ok := e[name]; return ok }

// lookup returns a variable and whether it says anything: an empty one counts
// as unset, since many tools can blank a variable but not remove it.
func (e environment) lookup(name string) (string, bool) {
	v := e[name]
	return v, v != ""
}

// list is the form that exec takes, sorted.
func (e environment) list() []string {
	l := make([]string, 0, len(e))
	for name, v := range e {
		l = append(l, name+"="+v)
	}
	slices.Sort(l)
	return l
}

// clone is a copy, never nil.
func (e environment) clone() environment {
	if c := maps.Clone(e); c != nil {
		return c
	}
	return environment{}
}

// workingDir is the first working directory: relative paths count from it, even
// if main changes directory before Run. Empty if it cannot be read.
var workingDir, _ = os.Getwd()

// variable ties an option to its variable of the environment, so that both go
// through the same check and are refused in the same words.
type variable[T any] struct {
	option   string // the function of this package
	name     string // the variable
	expected string // what check takes, in words
	at       func(*options) *T
	parse    func(string) (T, bool)
	check    func(T) (T, bool) // returns the value to store
	format   func(T) string
}

// override is a variable of any type.
type override interface {
	apply(*options, environment)
	variable() string
}

func (v variable[T]) variable() string { return v.name }

// code is the option itself.
func (v variable[T]) code(value T) Option {
	return func(o *options) {
		said := fmt.Sprintf("%s(%s)", v.option, v.format(value))
		value, ok := v.check(value)
		if !ok {
			o.problem("%s: expected %s", said, v.expected)
			return
		}
		*v.at(o) = value
		o.said[v.option] = said
	}
}

// apply lets the variable win over the code.
func (v variable[T]) apply(o *options, env environment) {
	text, ok := env.lookup(v.name)
	if !ok {
		return
	}
	said := fmt.Sprintf("%s=%q%s", v.name, text, o.inFile(v.name))
	value, ok := v.parse(text)
	if ok {
		value, ok = v.check(value)
	}
	if !ok {
		o.problem("%s: expected %s", said, v.expected)
		return
	}
	if was, now := v.format(*v.at(o)), v.format(value); now != was {
		who := "default"
		if _, inCode := o.said[v.option]; inCode {
			who = "code says"
		}
		key := strings.ToLower(strings.TrimPrefix(v.name, "BATON_"))
		o.overrides = append(o.overrides,
			fmt.Sprintf("%s=%s from %s%s, %s %s", key, now, v.name, o.inFile(v.name), who, was))
	}
	*v.at(o) = value
	o.said[v.option] = said
}

// maxDuration keeps slips such as a duration in nanoseconds from being taken
// for a wait of years; no drain that is meant is longer.
const maxDuration = 30 * 24 * time.Hour

// The scalar options. EnvFile comes from the inherited environment alone and
// is applied first, by resolve; the others from the merged environment.
var (
	workersVar = wholeVar("Workers", "BATON_WORKERS", 0, 1024,
		func(o *options) *int { return &o.Workers })
	maxDrainingVar = wholeVar("MaxDraining", "BATON_MAX_DRAINING", 1, 256,
		func(o *options) *int { return &o.MaxDraining })

	drainTimeoutVar = durationVar("DrainTimeout", "BATON_DRAIN_TIMEOUT", 0,
		func(o *options) *time.Duration { return &o.DrainTimeout })
	stopTimeoutVar = durationVar("StopTimeout", "BATON_STOP_TIMEOUT", 0,
		func(o *options) *time.Duration { return &o.StopTimeout })
	stopDelayVar = durationVar("StopDelay", "BATON_STOP_DELAY", 0,
		func(o *options) *time.Duration { return &o.StopDelay })
	readyTimeoutVar = durationVar("ReadyTimeout", "BATON_READY_TIMEOUT", 1,
		func(o *options) *time.Duration { return &o.ReadyTimeout })
	killTimeoutVar = durationVar("KillTimeout", "BATON_KILL_TIMEOUT", 0,
		func(o *options) *time.Duration { return &o.KillTimeout })
	hangTimeoutVar = durationVar("HangTimeout", "BATON_HANG_TIMEOUT", 0,
		func(o *options) *time.Duration { return &o.HangTimeout })
	giveUpAfterVar = durationVar("GiveUpAfter", "BATON_GIVE_UP_AFTER", 0,
		func(o *options) *time.Duration { return &o.GiveUpAfter })
	bakeTimeVar = durationVar("BakeTime", "BATON_BAKE_TIME", 0,
		func(o *options) *time.Duration { return &o.BakeTime })
	idleGraceVar = durationVar("IdleGrace", "BATON_IDLE_GRACE", 0,
		func(o *options) *time.Duration { return &o.IdleGrace })
	drainSpreadVar = durationVar("DrainSpread", "BATON_DRAIN_SPREAD", 0,
		func(o *options) *time.Duration { return &o.DrainSpread })

	orphanTimeoutVar = orphanVar(durationVar("OrphanTimeout", "BATON_ORPHAN_TIMEOUT", 0,
		func(o *options) *time.Duration { return &o.OrphanTimeout }))

	orphansVar = switchVar("Orphans", "BATON_ORPHANS",
		func(o *options) *bool { return &o.Orphans })

	preemptVar = switchVar("Preempt", "BATON_PREEMPT",
		func(o *options) *bool { return &o.Preempt })

	rollingVar = switchVar("Rolling", "BATON_ROLLING",
		func(o *options) *bool { return &o.Rolling })

	pidFileVar = pathVar("PIDFile", "BATON_PID_FILE",
		func(o *options) *string { return &o.PIDFile })
	runtimeDirVar = pathVar("RuntimeDir", "BATON_RUNTIME_DIR",
		func(o *options) *string { return &o.RuntimeDir })
	envFileVar = pathVar("EnvFile", "BATON_ENV_FILE",
		func(o *options) *string { return &o.EnvFile })

	modeVar = variable[bool]{
		option: "SingleProcess", name: "BATON_MODE", expected: "single or master",
		at: func(o *options) *bool { return &o.single },
		parse: func(s string) (single, ok bool) {
			return s == "single", s == "single" || s == "master"
		},
		check: func(single bool) (bool, bool) { return single, true },
		format: func(single bool) string {
			if single {
				return "single"
			}
			return "master"
		},
	}

	variables = []override{
		workersVar, drainTimeoutVar, stopTimeoutVar, stopDelayVar, readyTimeoutVar,
		killTimeoutVar, hangTimeoutVar, giveUpAfterVar, bakeTimeVar, idleGraceVar, drainSpreadVar, maxDrainingVar,
		dispatchVar{}, acceptVar, orphanTimeoutVar, orphansVar, rollingVar, preemptVar, pidFileVar, runtimeDirVar, modeVar, userVar, readyCheckVar,
	}
)

func wholeVar(option, name string, low, high int, at func(*options) *int) variable[int] {
	return variable[int]{
		option: option, name: name, at: at,
		expected: fmt.Sprintf("a whole number from %d to %d", low, high),
		parse: func(s string) (int, bool) {
			n, err := strconv.Atoi(s)
			return n, err == nil
		},
		check:  func(n int) (int, bool) { return n, low <= n && n <= high },
		format: strconv.Itoa,
	}
}

func durationVar(option, name string, low time.Duration, at func(*options) *time.Duration) variable[time.Duration] {
	from := "from 0s"
	if low > 0 {
		from = "above 0s,"
	}
	return variable[time.Duration]{
		option: option, name: name, at: at,
		expected: fmt.Sprintf(`a duration such as "30s", %s up to %dh`, from, maxDuration/time.Hour),
		parse: func(s string) (time.Duration, bool) {
			d, err := time.ParseDuration(s)
			return d, err == nil
		},
		check:  func(d time.Duration) (time.Duration, bool) { return d, low <= d && d <= maxDuration },
		format: time.Duration.String,
	}
}

// orphanVar names the default of OrphanTimeout, which is no duration.
func orphanVar(v variable[time.Duration]) variable[time.Duration] {
	v.format = func(d time.Duration) string {
		if d == orphansIfSupervised {
			return supervisedOrphanTimeout.String() + " where supervised"
		}
		return d.String()
	}
	return v
}

func switchVar(option, name string, at func(*options) *bool) variable[bool] {
	return variable[bool]{
		option: option, name: name, at: at, expected: "true or false",
		parse: func(s string) (bool, bool) {
			b, err := strconv.ParseBool(s)
			return b, err == nil
		},
		check:  func(b bool) (bool, bool) { return b, true },
		format: strconv.FormatBool,
	}
}

// pathVar stores absolute paths; "" stays what it is, the default.
func pathVar(option, name string, at func(*options) *string) variable[string] {
	return variable[string]{
		option: option, name: name, at: at,
		expected: expectedPath,
		parse:    func(s string) (string, bool) { return s, true },
		check:    absolute,
		format:   strconv.Quote,
	}
}

const expectedPath = "a path without NUL bytes, absolute if the working directory is unknown"

// absolute counts p from the first working directory; "" stays "".
func absolute(p string) (string, bool) {
	switch {
	case strings.ContainsRune(p, 0):
		return "", false
	case p == "":
		return "", true
	case filepath.IsAbs(p):
		return filepath.Clean(p), true
	case workingDir == "":
		return "", false
	}
	return filepath.Join(workingDir, p), true
}
