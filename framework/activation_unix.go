//go:build unix

package framework

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/baton-go/baton/internal/systemd"
	"github.com/baton-go/baton/listener"
)

// Sockets that systemd has bound are passed to the first master, and by it to
// the next ones under their place in that order.
const fileActivated = "baton/activated|"

// activation is a socket of systemd's, and its listener by its place.
type activation struct {
	Name     string `json:"name"` // FileDescriptorName=
	Listener int    `json:"listener"`
}

// passedSocket is a socket of systemd's that has no listener yet.
type passedSocket struct {
	name string
	file *os.File
	addr net.Addr // nil: it listens nowhere
}

// claimPassed takes up what systemd has passed, now or to an earlier master, and
// finds the listener for each of its sockets, before anything is bound. What an
// earlier start of ours has stored there is put aside.
func (m *master) claimPassed() (err error) {
	var sockets []passedSocket
	defer func() {
		for _, s := range sockets {
			s.file.Close() // or a listener has it, and this does nothing
		}
	}()
	for i, a := range m.offer.Activated {
		f, err := m.up.Inherit(fileActivated + strconv.Itoa(i))
		if err == nil && f == nil {
			err = fmt.Errorf("it was not passed on")
		}
		if err != nil {
			return fmt.Errorf("baton: socket %q of systemd: %w", a.Name, err)
		}
		sockets = append(sockets, passedSocket{name: a.Name, file: f})
	}
	for _, f := range systemd.Files() {
		if key, ok := systemd.StoredKey(f.Name()); ok {
			if m.stored[key] != nil {
				f.Close()
				continue
			}
			m.stored[key] = f
			continue
		}
		sockets = append(sockets, passedSocket{name: f.Name(), file: f})
	}
	for i := range sockets {
		sockets[i].addr, _ = listener.AddrOf(sockets[i].file)
	}
	places, problems := assign(m.o.Listeners, sockets)
	for i, s := range sockets {
		if len(problems) > 0 {
			break
		}
		l, err := listener.FromSupervisor(m.o.Listeners[places[i]], s.file)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%v: expected another socket of systemd, %s", err, s))
			break
		}
		m.passed[places[i]] = l
		m.activated = append(m.activated, activation{s.name, places[i]})
		if err := m.up.Keep(fileActivated+strconv.Itoa(i), l.File()); err != nil {
			return fmt.Errorf("baton: %w", err)
		}
	}
	if len(problems) > 0 {
		return configError(problems)
	}
	return nil
}

func (s passedSocket) String() string {
	if s.addr == nil {
		return fmt.Sprintf("%q (no listening stream socket)", s.name)
	}
	return fmt.Sprintf("%q (%s %s)", s.name, s.addr.Network(), s.addr)
}

// assign finds the listener of each socket: by name, else by address; and a
// single socket is the single listener's, whatever both are called. problems
// has a line for each socket that fits none.
func assign(specs []listener.Spec, sockets []passedSocket) (places []int, problems []string) {
	named := func(s listener.Spec, p passedSocket) bool { return s.Name == p.name }
	at := func(s listener.Spec, p passedSocket) bool { return p.addr != nil && s.BoundAt(p.addr) }
	places = make([]int, len(sockets))
	for i := range places {
		places[i] = -1
	}
	taken := make([]bool, len(specs))
	for _, fits := range []func(listener.Spec, passedSocket) bool{
		// All sockets of one unit have one name.
		func(s listener.Spec, p passedSocket) bool { return named(s, p) && at(s, p) },
		named,
		at,
		func(listener.Spec, passedSocket) bool { return len(specs) == 1 && len(sockets) == 1 },
	} {
		for i, p := range sockets {
			for j, s := range specs {
				if places[i] < 0 && !taken[j] && fits(s, p) {
					places[i], taken[j] = j, true
				}
			}
		}
	}
	for i, p := range sockets {
		if places[i] < 0 {
			problems = append(problems, fmt.Sprintf(
				"socket %s of systemd fits no listener, by name or address: expected one of %s", p, listed(specs)))
		}
	}
	return places, problems
}

func listed(specs []listener.Spec) string {
	var all []string
	for _, s := range specs {
		all = append(all, fmt.Sprintf("%q (%s %s)", s.Name, s.Network, s.Address))
	}
	return strings.Join(all, ", ")
}
