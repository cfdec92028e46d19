// Package config is what a test application is told, and how: as a trailer
// behind the end of its own executable, which ELF tolerates. A binary thus
// carries its behaviour wherever it is moved or pinned, as a real release does.
package config

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Config is the behaviour of one release of the test application.
type Config struct {
	// Version is answered as X-Version and at /version.
	Version string `json:"version,omitempty"`

	// Workers is framework.Workers; 0 leaves it out.
	Workers int `json:"workers,omitempty"`

	// Listeners are framework.Listen; none leaves it out.
	Listeners []Listener `json:"listeners,omitempty"`

	// TLS is framework.TLS; nil leaves it out.
	TLS *TLS `json:"tls,omitempty"`

	// TicketRotation is how often the keys of session tickets are renewed, in
	// place of once a day.
	TicketRotation time.Duration `json:"ticket_rotation,omitempty"`

	// Options are further options of the framework.
	Options Options `json:"options"`

	// H2C enables HTTP/2 without TLS.
	H2C bool `json:"h2c,omitempty"`

	// Serve takes framework.Serve with an echo by the line in place of RunFunc.
	Serve bool `json:"serve,omitempty"`

	// Sessions makes them numbered conversations, which are handed off when the
	// worker drains. HTTP services have them at /session in any case.
	Sessions bool `json:"sessions,omitempty"`

	// Adopt is framework.OnAdopt for every listener: sessions go on.
	Adopt bool `json:"adopt,omitempty"`

	// Fail is one of the Fail constants, "" for none.
	Fail string `json:"fail,omitempty"`

	// FailIf makes Fail count only in a process that finds a file at this path
	// when it starts: a release that works, and whose respawns fail.
	FailIf string `json:"fail_if,omitempty"`

	// Quirk is one of the Quirk constants, "" for none.
	Quirk string `json:"quirk,omitempty"`

	// BuildTakes is how long build takes: a deploy that lasts.
	BuildTakes time.Duration `json:"build_takes,omitempty"`
}

// Ways to fail (Config.Fail). The first group fails at the start of main, in
// every role; with the prefix Master in masters only, which for a candidate of
// an upgrade is after its first worker was found to be well.
const (
	FailExit0 = "exit0"
	FailExit1 = "exit1"           // after a line on stderr: "testapp: exits as told"
	FailPanic = "panic"           // "testapp: panics as told"
	FailHang  = "hang-before-run" // "testapp: hangs as told"

	Master = "master-" // as in Master + FailExit1

	FailBuild      = "build-error"      // build returns "testapp: build fails as told"
	FailBuildPanic = "build-panic"      // build panics
	FailNeverReady = "never-ready"      // build writes "testapp: waits as told" to stderr and does not return
	FailAfterReady = "exit-after-ready" // exit status 3, 300 ms after build
	FailLater      = "exit-later"       // exit status 3, 2 s after build
	FailRequests   = "fail-requests"    // every request is answered with 500: "testapp: fails as told"
	FailStop       = "hang-at-stop"     // an OnStop function that does not return
)

// Listener is one framework.Listen.
type Listener struct {
	Network string `json:"network"`
	Addr    string `json:"addr"`
	Name    string `json:"name,omitempty"`
}

// TLS is one framework.TLS.
type TLS struct {
	Cert      string   `json:"cert"`
	Key       string   `json:"key"`
	Listeners []string `json:"listeners,omitempty"` // none: all
}

// Options are left out where they are nil or "". Go 1.26 writes new(5*time.Second).
type Options struct {
	DrainTimeout *time.Duration `json:"drain_timeout,omitempty"`
	StopTimeout  *time.Duration `json:"stop_timeout,omitempty"`
	StopDelay    *time.Duration `json:"stop_delay,omitempty"`
	ReadyTimeout *time.Duration `json:"ready_timeout,omitempty"`
	KillTimeout  *time.Duration `json:"kill_timeout,omitempty"`
	HangTimeout  *time.Duration `json:"hang_timeout,omitempty"`
	GiveUpAfter  *time.Duration `json:"give_up_after,omitempty"`
	BakeTime     *time.Duration `json:"bake_time,omitempty"`
	IdleGrace    *time.Duration `json:"idle_grace,omitempty"`
	DrainSpread  *time.Duration `json:"drain_spread,omitempty"`
	MaxDraining  *int           `json:"max_draining,omitempty"`
	Dispatch     string         `json:"dispatch,omitempty"` // see policy.go of the application; with the prefix worker- in workers only
	ReadyCheck   string         `json:"ready_check,omitempty"`
	PIDFile      string         `json:"pid_file,omitempty"`
	User         string         `json:"user,omitempty"`
	RuntimeDir   string         `json:"runtime_dir,omitempty"`
	EnvFile      string         `json:"env_file,omitempty"`
}

// The trailer: JSON, its length in 8 bytes, and the magic.
const (
	magic     = "BATONAPP"
	footer    = 8 + len(magic)
	maxLength = 1 << 20
)

// Append writes the trailer; w stands at the end of the executable.
func Append(w io.Writer, c Config) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("trailer: %w", err)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(b)))
	if _, err := w.Write(append(b, magic...)); err != nil {
		return fmt.Errorf("trailer: %w", err)
	}
	return nil
}

// Read reads the trailer of the executable at path.
func Read(path string) (Config, error) {
	var c Config
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("trailer: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return c, fmt.Errorf("trailer: %w", err)
	}
	var foot [footer]byte
	if _, err := f.ReadAt(foot[:], size-int64(footer)); err != nil {
		return c, fmt.Errorf("trailer: %w", err)
	}
	n := binary.LittleEndian.Uint64(foot[:])
	if string(foot[8:]) != magic || n > maxLength {
		return c, errors.New("trailer: there is none")
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, size-int64(footer)-int64(n)); err != nil {
		return c, fmt.Errorf("trailer: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("trailer: %w", err)
	}
	return c, nil
}
