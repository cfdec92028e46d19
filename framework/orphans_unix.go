//go:build unix

package framework

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/baton-go/baton/internal/rundir"
	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
)

// What a master that was killed leaves: workers that go on, and a record of
// them. The next one waits for them before it binds anything, takes the
// listeners that they bring, and adopts them; its own generation replaces them
// as in a reload.

// adoptTimeout is how long workers that live are waited for. Who comes later is
// adopted later.
const adoptTimeout = 2 * time.Second

// orphanTimeout is how long workers may live on that ask for so long.
func (m *master) orphanTimeout(asked time.Duration) time.Duration {
	switch {
	case m.o.account != nil && !m.o.Orphans:
		return 0 // another user should not hold listeners
	case asked != orphansIfSupervised:
		return asked
	case m.o.supervised || m.init != nil:
		return supervisedOrphanTimeout
	}
	return 0
}

// orphanage is where orphans are met.
type orphanage struct {
	*workers.Orphans
	socket *net.UnixListener
	file   socketFile
	ended  chan struct{}
}

// findOrphans waits for the workers that the last master has left, if it was
// killed. This process has the lock, so there is no such master any more.
func (m *master) findOrphans() {
	if err := m.dir.Tidy(); err != nil {
		m.o.logger.Warn("what the last master has left is in the way", "reason", err.Error())
	}
	o := m.openOrphanage(nil)
	if o == nil {
		return
	}
	m.orphans = o
	m.next = max(m.next, o.Next())
	m.o.logger.Info("the last master has died, its workers are waited for", "workers", len(o.Missing()))
	ctx, cancel := context.WithTimeout(context.Background(), adoptTimeout)
	defer cancel()
	o.Wait(ctx)
	if missing := o.Missing(); len(missing) > 0 {
		var ids []string
		for _, id := range missing {
			ids = append(ids, id.String())
		}
		m.o.logger.Warn("workers of the last master live and do not come", "workers", ids)
	}
}

// openOrphanage finds the workers that are left and not known, and lets them
// come; nil if there are none.
func (m *master) openOrphanage(known func(pid int) bool) *orphanage {
	data, err := m.dir.ReadRecord()
	if data == nil && err == nil {
		return nil
	}
	o := &orphanage{ended: make(chan struct{})}
	if err == nil {
		o.Orphans, err = workers.ReadRecord(data, known)
	}
	if err == nil {
		if m.foreign = o.Foreign(); m.foreign != nil {
			m.o.logger.Warn("workers of the last master serve on, and not under this one", "reason", m.foreign.Error())
		}
	}
	if err == nil && len(o.Missing()) == 0 {
		o.Orphans.Close()
		return nil
	}
	if err == nil {
		o.socket, err = m.dir.ListenAdopt(o.UID())
	}
	if err != nil {
		m.o.logger.Error("workers of the last master cannot be adopted", "reason", err.Error())
		o.Orphans.Close()
		return nil
	}
	o.file = fileAt(m.dir.AdoptSocket())
	go m.meet(o)
	return o
}

// meetAtOnce is how many who connect are heard at a time.
const meetAtOnce = 64

// emptyCheck is how often it is looked whether everybody has come.
const emptyCheck = time.Second

// meet hears those who connect until nobody is left who could.
func (m *master) meet(o *orphanage) {
	defer close(o.ended)
	defer o.file.remove()
	defer o.socket.Close()
	slots := make(chan struct{}, meetAtOnce)
	for !o.Done() {
		_ = o.socket.SetDeadline(time.Now().Add(emptyCheck))
		c, err := o.socket.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil: // for want of descriptors
			time.Sleep(10 * time.Millisecond)
			continue
		}
		f, err := c.File()
		c.Close()
		if err != nil {
			continue // it comes again
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			if err := o.Meet(f); err != nil {
				m.o.logger.Debug("turned away from the socket for workers", "reason", err.Error())
			}
		}()
	}
}

// closeOrphanage turns away who has not been adopted. It says whether there is
// somebody left whom the next master must know.
func (m *master) closeOrphanage() (left bool) {
	o := m.orphans
	if o == nil {
		return false
	}
	left = !o.Done()
	_ = o.socket.Close()
	<-o.ended
	o.Orphans.Close()
	return left
}

// adoptListener makes a listener of one that an orphan has brought; nil if none
// has.
func (m *master) adoptListener(key string, spec listener.Spec) (*listener.Listener, error) {
	if m.orphans == nil {
		return nil, nil
	}
	f := m.orphans.Listener(key)
	if f == nil {
		return nil, nil
	}
	l, err := listener.FromFile(spec, f)
	if err == nil && l.Addr().String() != m.orphans.Bound(key) {
		err = errors.Join(errors.New("it is bound to "+l.Addr().String()+", not to "+m.orphans.Bound(key)), l.Release())
	}
	return l, err
}

// haveListener: what an orphan has brought is a copy of one that is here already.
func (m *master) haveListener(key string) {
	if m.orphans != nil {
		m.orphans.Have(key)
	}
}

// abandonedFiles are the socket files of listeners that the last master had and
// this release has not.
func (m *master) abandonedFiles(keys []string) (files []socketFile) {
	if m.orphans == nil {
		return nil
	}
	for _, spec := range m.orphans.Abandoned(keys) {
		files = append(files, leftover(spec))
	}
	return files
}

// foster makes those who have come and serve this master's workers. It returns
// their generation, 0 if there is none.
func (m *master) foster() int {
	if m.orphans == nil {
		return 0
	}
	n := m.pool.FosterServing(m.orphans.Orphans)
	if n == 0 {
		return 0
	}
	m.next = max(m.next, n+1)
	m.scaled.Store(int64(m.pool.Override()))
	m.o.logger.Info("the workers of the last master serve on", "generation", n)
	m.takeCharge()
	return n
}

var errNoLock = errors.New("the lock of the runtime directory is gone")

// keepRecord begins to write down who the workers are.
func (m *master) keepRecord() {
	there := true // perhaps, of a master before
	m.pool.KeepRecord(m.dir.AdoptSocket(), m.leash, func(data []byte) (err error) {
		switch {
		case !m.dir.Holds():
			m.keptRecord(data != nil) // it is written once the lock is put back
			return errNoLock
		case data != nil:
			there = true
			err = m.dir.WriteRecord(data)
			m.keptRecord(true)
		case there:
			m.keptRecord(false)
			err = m.dir.RemoveRecord()
			there = err != nil
		}
		return err
	})
}

// lockWait bounds the wait for a lock whose holder is dead: processes that it
// was starting have it until they end, or have begun.
const (
	lockWait  = 2 * time.Second
	lockPause = 20 * time.Millisecond
)

// takeLock takes the lock, unless a process that lives has it.
func (m *master) takeLock() (*rundir.Lock, error) {
	for end := time.Now().Add(lockWait); ; time.Sleep(lockPause) {
		lock, err := m.dir.Lock()
		var held *rundir.HeldError
		if !errors.As(err, &held) || held.PID == 0 || syscall.Kill(held.PID, 0) != syscall.ESRCH || time.Now().After(end) {
			return lock, err
		}
	}
}
