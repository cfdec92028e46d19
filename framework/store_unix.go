//go:build unix

package framework

import (
	"os"
	"slices"
	"time"

	"github.com/baton-go/baton/internal/systemd"
	"github.com/baton-go/baton/listener"
)

// A copy of each listener that we bound is stored with systemd, under the
// listener's key. If this master is killed, what clients begin meanwhile waits
// in the queue of the socket, and the next start is given the socket.

// barrierTime bounds the wait for systemd to have acted.
const barrierTime = 2 * time.Second

// storedListener takes up a listener that an earlier master had stored; nil if
// there is none, or none that clients could still reach.
func (m *master) storedListener(key string, s listener.Spec) *listener.Listener {
	f := m.stored[key]
	if f == nil {
		return nil
	}
	delete(m.stored, key)
	if s.Network == "unix" && s.Address[0] != '@' {
		if info, err := os.Lstat(s.Address); err != nil || info.Mode().Type() != os.ModeSocket {
			f.Close()
			_ = m.unstore(key)
			return nil
		}
	}
	l, err := listener.FromFile(s, f)
	if err != nil {
		m.o.logger.Warn("a stored listener is of no use", "listener", s.Name, "reason", err.Error())
		_ = m.unstore(key)
		m.herald.settle() // its address is to be bound
		return nil
	}
	l.Welcome() // a stop may not have been able to take it back
	m.o.logger.Info("listening on what was stored with systemd", "listener", s.Name, "address", l.Addr().String())
	return l
}

// dropStored gives up what is stored and no listener's any more. Its address may
// be that of another listener, so its end is waited for.
func (m *master) dropStored(keys []string) {
	dropped := false
	for key, f := range m.stored {
		if i := slices.Index(keys, key); key == storedTickets || i >= 0 && m.passed[i] == nil {
			continue
		}
		f.Close()
		delete(m.stored, key)
		_ = m.unstore(key)
		dropped = true
	}
	if dropped {
		m.herald.settle()
	}
}

// store leaves all listeners that are ours with systemd, and takes back those
// that only the predecessor had. What is there already is not stored twice.
func (m *master) store() {
	m.rotation.Lock()
	m.storeTickets()
	m.rotation.Unlock()
	m.storing.Lock()
	defer m.storing.Unlock()
	if m.unstored {
		return
	}
	keys := listener.Keys(m.o.Listeners)
	for i, l := range m.listeners {
		if l.Shared() {
			continue // systemd has it anyway
		}
		if name, ok := systemd.StoreName(keys[i]); ok {
			m.herald.say(m.herald.n.Store(name, l.File()))
		}
	}
	for _, key := range listener.Keys(m.offer.Listeners) {
		if !slices.Contains(keys, key) {
			_ = m.unstore(key)
		}
	}
}

// unstoreAll takes everything back, before the listeners are closed: a socket
// that systemd keeps is not closed, and its queue nobody's.
func (m *master) unstoreAll() {
	m.storing.Lock()
	defer m.storing.Unlock()
	if m.unstored {
		return
	}
	m.unstored = true
	keys := listener.Keys(m.o.Listeners)
	for i, l := range m.listeners {
		if !l.Shared() && m.unstore(keys[i]) != nil {
			return // who does not hear this would keep us waiting with the rest
		}
	}
	m.herald.settle()
}

func (m *master) unstore(key string) error {
	name, ok := systemd.StoreName(key)
	if !ok {
		return nil
	}
	err := m.herald.n.Remove(name)
	m.herald.say(err)
	return err
}
