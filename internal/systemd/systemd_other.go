//go:build !linux

package systemd

import (
	"context"
	"errors"
	"os"
	"time"
)

// Files returns the files that systemd passed: there is no systemd.
func Files() []*os.File { return nil }

// WatchdogTime returns 0: nobody watches.
func WatchdogTime() time.Duration { return 0 }

// Notifier says things to nobody.
type Notifier struct{}

// NewNotifier returns nil.
func NewNotifier(string) *Notifier { return nil }

// Notify does nothing.
func (*Notifier) Notify(...string) error { return nil }

// Store does nothing.
func (*Notifier) Store(string, *os.File) error { return nil }

// Remove does nothing.
func (*Notifier) Remove(string) error { return nil }

// Barrier does nothing.
func (*Notifier) Barrier(time.Duration) error { return nil }

// StorePipe returns nil: nothing is stored.
func (*Notifier) StorePipe(string, time.Duration) (*os.File, error) { return nil, nil }

// OtherEnd fails.
func OtherEnd(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

// NewMemory fails.
func NewMemory(string) (*os.File, error) { return nil, errors.ErrUnsupported }

// Reclaim does nothing.
func (*Notifier) Reclaim(context.Context) error { return nil }

func monotonic() int64 { return 0 }
