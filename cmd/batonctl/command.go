package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/rundir"
)

// statusTimeout is the default of --timeout for status, which needs no deploy to
// end before it is answered.
const statusTimeout = 10 * time.Second

type statusCmd struct {
	JSON  bool     `help:"Print the service's JSON." name:"json"`
	Watch interval `help:"Redraw until interrupted, every second or as given by --watch=INTERVAL."`
}

type reloadCmd struct{}

type upgradeCmd struct{}

type rollbackCmd struct{}

type scaleCmd struct {
	Workers string `arg:"" help:"Number of workers, or +N or -N to change it by." placeholder:"N|+N|-N"`
}

type weightCmd struct {
	Weights []string `arg:"" help:"Slot and weight, as 1=3; 0 is for what others have no room for." placeholder:"SLOT=W"`
}

type stopCmd struct {
	Now bool `help:"Do not drain: cut what is open."`
}

// Run shows the status once, or again and again.
func (c *statusCmd) Run(e *env) error {
	if c.Watch > 0 {
		return watch(e, time.Duration(c.Watch), c.show)
	}
	out, err := c.show(e)
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(out)
	return err
}

func (c *statusCmd) show(e *env) ([]byte, error) {
	ctx, cancel := e.context(statusTimeout)
	defer cancel()
	if c.JSON {
		raw, err := e.client.StatusJSON(ctx)
		if err != nil {
			return nil, e.explain(err, statusTimeout)
		}
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
			return nil, fmt.Errorf("status: %w", err)
		}
		b.WriteByte('\n')
		return b.Bytes(), nil
	}
	st, err := e.client.Status(ctx)
	if err != nil {
		return nil, e.explain(err, statusTimeout)
	}
	var b bytes.Buffer
	render(&b, st, time.Now())
	return b.Bytes(), nil
}

// Run asks for a reload.
func (c *reloadCmd) Run(e *env) error {
	return e.ask(control.ActionReload, e.client.Reload)
}

// Run asks for an upgrade.
func (c *upgradeCmd) Run(e *env) error {
	return e.ask(control.ActionUpgrade, e.client.Upgrade)
}

// Run asks for the release that served before.
func (c *rollbackCmd) Run(e *env) error {
	return e.ask(control.ActionRollback, e.client.Rollback)
}

// Run asks for another number of workers.
func (c *scaleCmd) Run(e *env) error {
	req, err := parseCount(c.Workers)
	if err != nil {
		return &failure{exitUsage, err}
	}
	return e.ask(control.ActionScale, func(ctx context.Context) (control.Verdict, error) {
		return e.client.Scale(ctx, req)
	})
}

// Run asks for other weights.
func (c *weightCmd) Run(e *env) error {
	req, err := parseWeights(c.Weights)
	if err != nil {
		return &failure{exitUsage, err}
	}
	return e.ask(control.ActionWeight, func(ctx context.Context) (control.Verdict, error) {
		return e.client.Weight(ctx, req)
	})
}

// Run asks the service to stop. Workers that have lost their master are told
// themselves.
func (c *stopCmd) Run(e *env) error {
	err := e.ask(control.ActionStop, func(ctx context.Context) (control.Verdict, error) {
		return e.client.Stop(ctx, control.StopRequest{Now: c.Now})
	})
	if !errors.Is(err, control.ErrNoService) || e.dir == "" {
		return err
	}
	n, derr := rundir.Dismiss(e.dir, c.Now)
	switch {
	case derr != nil:
		return fmt.Errorf("%w; its workers: %w", err, derr)
	case n == 0:
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "stop: done, there was no master; workers that leave: %d\n", n)
	return err
}

// ask sends a request and prints its verdict.
func (e *env) ask(action string, send func(context.Context) (control.Verdict, error)) error {
	ctx, cancel := e.context(0)
	defer cancel()
	v, err := send(ctx)
	if err != nil {
		return e.explain(err, 0)
	}
	if v.OK {
		_, err := fmt.Fprintln(e.stdout, done(action, v))
		return err
	}
	return &failure{exitFailed, errors.New(refused(action, v))}
}

// done is the line that a verdict which is OK makes.
func done(action string, v control.Verdict) string {
	var b strings.Builder
	b.WriteString(action + ": done")
	if v.Generation > 0 {
		fmt.Fprintf(&b, ", generation %d", v.Generation)
	}
	fmt.Fprintf(&b, " (%v)", time.Duration(v.TookMS)*time.Millisecond)
	if v.Coalesced {
		b.WriteString(", together with another request")
	}
	if v.Reason != "" {
		b.WriteString(": " + v.Reason)
	}
	return b.String()
}

// refused is what a verdict that is not OK makes: the reason, then the tail of
// the candidate's stderr as it was written.
func refused(action string, v control.Verdict) string {
	reason := v.Reason
	if reason == "" {
		reason = "no reason was given"
	}
	s := fmt.Sprintf("%s refused: %s", action, reason)
	if tail := strings.TrimRight(v.Stderr, "\n"); tail != "" {
		s += "\nstderr of the candidate:\n" + tail
	}
	return s
}

// context bounds the wait by --timeout, or by def where that was not given; 0 is
// no bound.
func (e *env) context(def time.Duration) (context.Context, context.CancelFunc) {
	if d := e.wait(def); d > 0 {
		return context.WithTimeout(context.Background(), d)
	}
	return context.WithCancel(context.Background())
}

func (e *env) wait(def time.Duration) time.Duration {
	if e.timeout != nil {
		return *e.timeout
	}
	return def
}

// explain says what a timeout means; other errors speak for themselves.
func (e *env) explain(err error, def time.Duration) error {
	switch {
	case !errors.Is(err, context.DeadlineExceeded), errors.Is(err, control.ErrNoService):
		return err
	case def > 0: // a question, which changes nothing
		return fmt.Errorf("no answer within %v: %w", e.wait(def), err)
	}
	return fmt.Errorf("no answer within %v; what was asked for goes on: %w", e.wait(def), err)
}
