package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// Listener is a listening socket. Windows cannot pass it on: only Net, Addr
// and Close do anything here.
type Listener struct {
	spec Spec
	net  net.Listener
}

// Bind binds and listens.
func Bind(s Spec) (*Listener, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	n, err := lc.Listen(context.Background(), s.Network, s.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", s.Name, err)
	}
	return &Listener{spec: s, net: n}, nil
}

// FromFile is not supported; it closes f, which it owns.
func FromFile(s Spec, f *os.File) (*Listener, error) {
	if f != nil {
		f.Close()
	}
	return nil, fmt.Errorf("listener %q: inherit: %w", s.Name, errors.ErrUnsupported)
}

// Accept is not supported: see Net.
func (l *Listener) Accept([]int, Gate) (int, error) { return 0, errors.ErrUnsupported }

// TryAccept is not supported: see Net.
func (l *Listener) TryAccept([]int, Gate) (int, error) { return 0, errors.ErrUnsupported }

// Pause does nothing.
func (l *Listener) Pause() {}

// Resume does nothing.
func (l *Listener) Resume() {}

// Name is the spec's name.
func (l *Listener) Name() string { return l.spec.Name }

// Spec is what the listener was made from.
func (l *Listener) Spec() Spec { return l.spec }

// Addr is the address as bound, with the port that the system chose.
func (l *Listener) Addr() net.Addr { return l.net.Addr() }

// File is nil: there is no socket to pass on.
func (l *Listener) File() *os.File { return nil }

// Net is the listener of package net; closing it closes l.
func (l *Listener) Net() (net.Listener, error) { return l.net, nil }

// Close closes the socket.
func (l *Listener) Close() error { return l.net.Close() }

// Release is Close without removing the file of a unix socket.
func (l *Listener) Release() error {
	if u, ok := l.net.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l.net.Close()
}
