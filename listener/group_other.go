//go:build !linux

package listener

import (
	"fmt"
	"runtime"
)

// Group exists on Linux only.
type Group struct{}

// GroupSupported returns an error that wraps [ErrNoGroup].
func GroupSupported() error {
	return fmt.Errorf("%w: needs Linux (here: %s)", ErrNoGroup, runtime.GOOS)
}

// NewGroup returns an error that wraps [ErrNoGroup].
func NewGroup(...*Listener) (*Group, error) { return nil, GroupSupported() }

// Add returns an error that wraps [ErrNoGroup].
func (*Group) Add() (*Listener, error) { return nil, GroupSupported() }

// Len is 0.
func (*Group) Len() int { return 0 }

// Slot returns nil.
func (*Group) Slot(int) *Listener { return nil }

// SetLive returns an error that wraps [ErrNoGroup].
func (*Group) SetLive(...int) error { return GroupSupported() }

// Live returns nil.
func (*Group) Live() []int { return nil }

// Leave does nothing.
func (*Group) Leave() {}
