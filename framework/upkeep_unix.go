//go:build unix

package framework

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/rundir"
)

// A service that runs for months meets a cleaner of temporary files, a disk that
// is full, a file system that turns read-only. None of its files is needed to
// serve; without them it cannot be controlled, and does not outlive its master. So
// they are looked after, put back where they are gone, and what cannot be put back
// is said once.

// The files are looked after every upkeepPause, and before each deploy. Each look
// wakes the master, which should not be often where nothing happens. As long as
// something is amiss it is every troublePause.
const (
	upkeepPause  = 6 * time.Second
	troublePause = time.Second
)

// upkeep is what it takes.
type upkeep struct {
	// mu guards the master's lock and socket, which are others once their files
	// were put back. It is held while a new master is started, which takes them.
	mu sync.Mutex

	socket   socketFile // the control socket's, as it was bound
	recorded bool       // there should be a record; under its own lock
	record   sync.Mutex
	named    bool            // the pid file named this process
	troubles map[string]bool // what has been said, by file
}

// tended is one of the files. restore puts it back if it is gone, and tells
// whether it did.
type tended struct {
	what, path string
	restore    func() (bool, error)
}

func (m *master) tended() []tended {
	files := []tended{
		{"runtime directory", m.dir.Path(), m.dir.Restore},
		{"lock", m.dir.LockPath(), m.restoreLock},
		{"control socket", m.dir.Socket(), m.restoreSocket},
		{"record of the workers", m.dir.RecordPath(), m.restoreRecord},
	}
	if m.o.PIDFile != "" {
		files = append(files, tended{"pid file", m.o.PIDFile, m.restorePIDFile})
	}
	return files
}

// keepUp looks after the files until quit.
func (m *master) keepUp(quit <-chan struct{}) error {
	timer := time.NewTimer(upkeepPause)
	defer timer.Stop()
	for {
		select {
		case <-quit:
			return nil
		case <-timer.C:
		}
		pause := troublePause
		if m.upkeep.mu.TryLock() { // else a new master is being started
			m.tendLocked()
			if len(m.upkeep.troubles) == 0 {
				pause = upkeepPause
			}
			m.upkeep.mu.Unlock()
		}
		timer.Reset(pause)
	}
}

// tend looks after the files now, unless they are another master's, or about to
// be.
func (m *master) tend() {
	m.upkeep.mu.Lock()
	defer m.upkeep.mu.Unlock()
	m.tendLocked()
}

func (m *master) tendLocked() {
	u := &m.upkeep
	if !m.took.Load() || m.replaced.Load() {
		return
	}
	var back []string
	var lost string // where nothing can be put back: it is not there, or not ours
	for _, f := range m.tended() {
		if lost != "" && strings.HasPrefix(f.path, lost) {
			continue
		}
		restored, err := f.restore()
		if restored && !u.troubles[f.what] {
			back = append(back, f.path)
		}
		m.saySo(f.what, f.path, err)
		var held *rundir.HeldError
		if err != nil && f.path == m.dir.Path() || errors.As(err, &held) {
			lost = m.dir.Path() + string(filepath.Separator)
		}
	}
	if len(back) > 0 {
		m.o.logger.Warn("files of the running service had been removed, they are put back", "files", back)
	}
}

// saySo says once that a file cannot be put back, and once that it is well.
func (m *master) saySo(what, path string, err error) {
	u := &m.upkeep
	if (err != nil) == u.troubles[what] {
		return
	}
	if err == nil {
		delete(u.troubles, what)
		m.o.logger.Info("the "+what+" is well again", "path", path)
		return
	}
	if u.troubles == nil {
		u.troubles = map[string]bool{}
	}
	u.troubles[what] = true
	m.o.logger.Warn("the "+what+" is not as it should be and cannot be put right, the service goes on", "path", path, "reason", err.Error())
}

func (m *master) restoreLock() (restored bool, err error) {
	lock, err := m.dir.Relock()
	if err != nil {
		return false, err
	}
	if lock != nil {
		old := m.lock
		m.lock, restored = lock, true
		_ = old.Close()
		if err := m.up.Keep(fileLock, lock.File()); err != nil {
			return true, err
		}
	}
	if !m.lock.Named() {
		err = m.lock.Claim()
	}
	return restored, err
}

func (m *master) restoreSocket() (bool, error) {
	path := m.dir.Socket()
	switch info, err := os.Lstat(path); {
	case err == nil && m.upkeep.socket.info != nil && os.SameFile(info, m.upkeep.socket.info):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	socket, err := control.Listen(path)
	if err != nil {
		return false, err
	}
	f, err := socket.File()
	if err == nil {
		err = m.up.Keep(fileControl, f)
		f.Close()
	}
	if err != nil {
		_ = socket.Close()
		return false, err
	}
	old := m.socket
	m.socket, m.upkeep.socket = socket, fileAt(path)
	_ = old.Close() // whoever serves it turns to the other
	return true, nil
}

// keptRecord remembers whether there should be a record.
func (m *master) keptRecord(there bool) {
	m.upkeep.record.Lock()
	defer m.upkeep.record.Unlock()
	m.upkeep.recorded = there
}

// restoreRecord leaves it to the pool to say what keeps it from writing.
func (m *master) restoreRecord() (bool, error) {
	m.upkeep.record.Lock()
	should := m.upkeep.recorded
	m.upkeep.record.Unlock()
	if there, err := m.dir.HasRecord(); there || !should || err != nil {
		return false, err
	}
	return m.pool.Rewrite() == nil, nil
}

// restorePIDFile leaves a file alone that names another process: unless it could
// not be written yet, somebody has put it there.
func (m *master) restorePIDFile() (bool, error) {
	there, names, err := rundir.PIDFileIs(m.o.PIDFile, os.Getpid())
	if err != nil || names || there && m.upkeep.named {
		m.upkeep.named = m.upkeep.named || names
		return false, err
	}
	if err := rundir.WritePIDFile(m.o.PIDFile, os.Getpid()); err != nil {
		return false, err
	}
	restored := m.upkeep.named
	m.upkeep.named = true
	return restored, nil
}

// controlSocket is where this master is asked now.
func (m *master) controlSocket() *net.UnixListener {
	m.upkeep.mu.Lock()
	defer m.upkeep.mu.Unlock()
	return m.socket
}
