//go:build unix

package framework

import (
	"github.com/baton-go/baton/internal/systemd"
)

// Workers that outlive their master must learn when nobody will start another:
// when the unit has been stopped, or systemd has given it up, while there was no
// master. Nothing is signalled or executed then, but systemd closes what it
// stores for the unit. So the writing end of a pipe is stored, and the workers
// have the reading end, their leash. It is one pipe through all masters.

// storedLeash is what the pipe is stored as, and handed to the next master.
const (
	storedLeash = "leash"
	fileLeash   = "baton/leash"
)

// openLeash finds the pipe of the masters before, or stores one. A unit without
// FileDescriptorStoreMax= has none: its orphans have OrphanTimeout alone.
func (m *master) openLeash() (err error) {
	if m.pred != nil {
		if m.leash, err = m.up.Inherit(fileLeash); err != nil || m.leash == nil {
			return err
		}
		return m.up.Keep(fileLeash, m.leash)
	}
	if f := m.stored[storedLeash]; f != nil {
		delete(m.stored, storedLeash)
		m.leash, err = systemd.OtherEnd(f)
		f.Close()
	} else if m.herald.n != nil {
		name, _ := systemd.StoreName(storedLeash)
		m.leash, err = m.herald.n.StorePipe(name, barrierTime)
	}
	if err != nil {
		m.o.logger.Warn("workers without a master would not notice that the unit is stopped", "reason", err.Error())
		return nil
	}
	if m.leash == nil {
		return nil
	}
	return m.up.Keep(fileLeash, m.leash)
}
