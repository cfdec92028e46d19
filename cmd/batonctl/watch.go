package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// interval is a flag that may stand alone (--watch) or carry a duration
// (--watch=5s); 0 is not given.
type interval time.Duration

const defaultInterval = interval(time.Second)

// IsBool lets the flag stand without a value.
func (*interval) IsBool() bool { return true }

// Decode reads the duration, if there is one.
func (i *interval) Decode(ctx *kong.DecodeContext) error {
	*i = defaultInterval
	t := ctx.Scan.Peek()
	if t.Type != kong.FlagValueToken {
		return nil
	}
	ctx.Scan.Pop()
	d, err := time.ParseDuration(fmt.Sprint(t.Value))
	if err != nil || d <= 0 {
		return fmt.Errorf("%v, expected a positive duration such as 1s", t.Value)
	}
	*i = interval(d)
	return nil
}

// homeAndErase is what a terminal understands as: home, and erase what is below.
const homeAndErase = "\x1b[H\x1b[J"

// watch draws until it is interrupted, which is how it is meant to end. The first
// drawing must succeed; later on a service may be away for a moment, or for good,
// and the reader wants to see it come back.
func watch(e *env, every time.Duration, draw func(*env) ([]byte, error)) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, err := draw(e)
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	between := "\n"
	if isTerminal(e.stdout) {
		between = homeAndErase
		fmt.Fprint(e.stdout, "\x1b[2J"+homeAndErase)
	}
	for {
		if _, err := e.stdout.Write(out); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if out, err = draw(e); err != nil {
			out = fmt.Appendf(nil, "%s: %v\n", time.Now().Format(time.TimeOnly), err)
		}
		out = append([]byte(between), out...)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}
