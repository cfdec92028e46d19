package listener

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Group is several sockets at one address, each with a queue of its own, called
// slots 0, 1, … in the order in which they joined. The kernel gives the live ones
// new connections strictly in turn, by a program that it runs at the first packet
// of each; so a connection may still come to a slot that has just stopped being
// live, and whoever holds a group has to serve the queue of every slot until the
// end.
//
// The program stays attached for as long as one of the sockets lives, whatever
// becomes of the process. Who takes the sockets over makes a Group of its own,
// which replaces it.
//
// Its methods may be called from several goroutines.
type Group struct {
	mu    sync.Mutex
	slots []*Listener
	live  []int
	r     *rotation // nil after Leave
	alone bool      // slot 0 waits for another socket
}

var errLeft = fmt.Errorf("%w: the group was left", ErrNoGroup)

// GroupSupported returns nil if this process can make a Group, or an error that
// wraps [ErrNoGroup] and says what is missing. It asks the kernel, and leaves
// nothing behind.
func GroupSupported() error {
	r, err := newRotation()
	if err == nil {
		r.close()
	}
	return err
}

// NewGroup makes a group of sockets that listen at the same address, none of
// which is live: until [Group.SetLive] the kernel chooses by a hash. The sockets
// stay their owner's. A socket that is in somebody else's group is taken out of
// it, which can take a moment, at most 2 s.
//
// A first socket need not have been made for this: it is only now that others are
// admitted beside it, those of processes with the same user id. All errors wrap
// [ErrNoGroup].
func NewGroup(sockets ...*Listener) (*Group, error) {
	if len(sockets) == 0 || len(sockets) > MaxSlots {
		return nil, fmt.Errorf("%w: %d sockets: expected 1 to %d", ErrNoGroup, len(sockets), MaxSlots)
	}
	first := sockets[0]
	if first.spec.Network == "unix" {
		return nil, fmt.Errorf("%w: listener %q: expected TCP, a unix socket is one", ErrNoGroup, first.spec.Name)
	}
	for _, l := range sockets[1:] {
		if l.addr.String() != first.addr.String() {
			return nil, fmt.Errorf("%w: listener %q: expected sockets at one address, got %s and %s",
				ErrNoGroup, first.spec.Name, first.addr, l.addr)
		}
	}
	r, err := newRotation()
	if err != nil {
		return nil, err
	}
	g := &Group{r: r}
	for _, l := range sockets {
		if err = g.join(l); err != nil {
			r.close()
			return nil, err
		}
	}
	return g, nil
}

// join makes l the next slot.
func (g *Group) join(l *Listener) error {
	slot := len(g.slots)
	err := control(l, func(fd uintptr) error {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("set SO_REUSEPORT: %w", err)
		}
		return g.r.put(slot, fd)
	})
	if slot == 0 && errors.Is(err, unix.EINVAL) {
		// One that was bound alone becomes part of a group, for the kernel,
		// when another joins it.
		g.alone, err = true, nil
	}
	if slot > 0 && g.alone && err == nil {
		if err = control(g.slots[0], func(fd uintptr) error { return g.r.put(0, fd) }); err == nil {
			g.alone = false
		}
	}
	if err != nil {
		return fmt.Errorf("%w: listener %q: slot %d: %w", ErrNoGroup, l.spec.Name, slot, err)
	}
	g.slots = append(g.slots, l)
	return nil
}

// Add binds another socket and makes it the next slot, which is not live yet. It
// is the caller's, like the others, and to be closed last: what is in its queue
// is reset with it.
func (g *Group) Add() (*Listener, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := g.slots[0]
	if len(g.slots) == MaxSlots {
		return nil, fmt.Errorf("%w: listener %q: expected at most %d slots", ErrNoGroup, first.spec.Name, MaxSlots)
	}
	if g.r == nil {
		return nil, errLeft
	}
	l, err := sibling(first)
	if err != nil {
		return nil, fmt.Errorf("%w: listener %q: slot %d: %w", ErrNoGroup, first.spec.Name, len(g.slots), err)
	}
	if err := g.join(l); err != nil {
		l.Release()
		return nil, err
	}
	return l, nil
}

// Len is how many slots there are, live or not.
func (g *Group) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.slots)
}

// Slot returns the socket of a slot.
func (g *Group) Slot(i int) *Listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slots[i]
}

// SetLive says which slots get new connections, in this order. The change is
// atomic: each connection is given by the old list or by the new one, and when
// SetLive returns, by the new one. It waits for the kernel, some milliseconds.
// With no live slot at all the kernel chooses among all by a hash.
func (g *Group) SetLive(slots ...int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.r == nil {
		return errLeft
	}
	for _, s := range slots {
		if s < 0 || s >= len(g.slots) {
			return fmt.Errorf("listener %q: slot %d: expected 0 to %d", g.slots[0].spec.Name, s, len(g.slots)-1)
		}
	}
	if len(slots) > MaxSlots {
		return fmt.Errorf("listener %q: %d live slots: expected at most %d", g.slots[0].spec.Name, len(slots), MaxSlots)
	}
	err := g.r.swap(slots)
	if err == nil && !g.alone {
		err = control(g.slots[0], g.r.attach) // again and again: it may have been replaced
	}
	if err != nil {
		return fmt.Errorf("listener %q: live slots: %w", g.slots[0].spec.Name, err)
	}
	g.live = slices.Clone(slots)
	return nil
}

// Live returns what SetLive was last told.
func (g *Group) Live() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.live)
}

// Leave closes what the group holds beside its sockets. The program stays
// attached, unless another group has taken its place, and goes on with the live
// slots as they are: that is for a process that ends, and whose sockets another
// one has. Leaving again does nothing.
func (g *Group) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.r != nil {
		g.r.close()
		g.r = nil
	}
}

// sibling binds a socket beside l, with what decides whether it can be.
func sibling(l *Listener) (*Listener, error) {
	fd := -1
	err := control(l, func(first uintptr) error {
		name, err := unix.Getsockname(int(first))
		if err != nil {
			return fmt.Errorf("getsockname: %w", err)
		}
		domain, err := unix.GetsockoptInt(int(first), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return fmt.Errorf("get SO_DOMAIN: %w", err)
		}
		if fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err = resemble(fd, int(first), domain); err == nil {
			err = tune(fd)
		}
		if err != nil {
			return err
		}
		if err = unix.Bind(fd, name); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		if err = unix.Listen(fd, backlog); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return newListener(l.spec, l.addr, fd, nil)
}

// backlog is what the kernel cuts to net.core.somaxconn, as package net does.
const backlog = 1<<16 - 1

// resemble sets on fd the options of first without which the kernel would not
// have them at the same address.
func resemble(fd, first, domain int) error {
	for _, o := range []struct {
		name   string
		lv, op int
		copied bool
	}{
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, false},
		{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, false},
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, true},
		{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, true},
		{"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT, true},
	} {
		value := 1
		if o.copied {
			if o.lv == unix.IPPROTO_IPV6 && domain != unix.AF_INET6 {
				continue
			}
			var err error
			if value, err = unix.GetsockoptInt(first, o.lv, o.op); err != nil {
				return fmt.Errorf("get %s: %w", o.name, err)
			}
			if value == 0 && o.op != unix.IPV6_V6ONLY {
				continue
			}
		}
		if err := unix.SetsockoptInt(fd, o.lv, o.op, value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	device, err := unix.GetsockoptString(first, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err != nil || device == "" {
		return nil
	}
	if err := unix.BindToDevice(fd, device); err != nil {
		return fmt.Errorf("set SO_BINDTODEVICE: %w", err)
	}
	return nil
}

func control(l *Listener, f func(fd uintptr) error) error {
	var err error
	cerr := l.raw.Control(func(fd uintptr) { err = f(fd) })
	return errors.Join(cerr, err)
}
