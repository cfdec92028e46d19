//go:build unix

package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers/ipc"
)

// Orphans are the workers of a master that has died, as its record names them.
// Nothing that they say is believed unless it agrees with the record: who
// connects must be the very process, know its nonce, and show the very files and
// sockets. Nobody is signalled before that.
type Orphans struct {
	record  poolRecord
	uid     int
	foreign error

	mu      sync.Mutex
	missing []*orphan             // alive, and not come
	came    []*orphan             // and not the pool's yet
	sockets map[string][]*os.File // that they have brought, by key; nil where one is missing
	taken   map[string]bool       // keys of which the first has a new owner
	spoken  bool                  // for the listeners: no more are taken
	pool    *Pool                 // that gets those who come from now on
	closed  bool
}

// orphan is one worker.
type orphan struct {
	gen  generationRecord
	rec  childRecord
	proc *process

	// Once it has come.
	conn        *ipc.Conn
	page, crash *os.File
	binary      *os.File // may be nil
	env         []string
	draining    bool
	heard       bool // somebody who may be it is being heard
}

func (o *orphan) id() ID { return ID{Generation: o.gen.Number, Slot: o.rec.Slot} }

func (o *orphan) close() {
	(&started{proc: o.proc, conn: o.conn, page: o.page, crash: o.crash}).close()
	if o.binary != nil {
		o.binary.Close()
	}
}

// ErrStranger is wrapped by what Meet returns for those who are none of the
// orphans.
var ErrStranger = errors.New("not a worker of the master that died")

// ReadRecord finds the workers that are named in the record of a dead master and
// are alive. A worker for which known is true is somebody's already; known may
// be nil.
//
// Those that speak no protocol which this build does are left to themselves; see
// Foreign.
func ReadRecord(data []byte, known func(pid int) bool) (*Orphans, error) {
	o := &Orphans{uid: os.Geteuid(), sockets: map[string][]*os.File{}, taken: map[string]bool{}}
	if err := json.Unmarshal(data, &o.record); err != nil {
		return nil, fmt.Errorf("record of the dead master: %w", err)
	}
	theClocks.read(&o.record, o.record.Clocks)
	readable := protocol.Meets(o.record.Protocol)
	seen := map[int]bool{}
	for _, g := range o.record.Generations {
		if !readable {
			g.Protocol = o.record.Protocol
		}
		workers := g.Workers
		g.Workers = nil
		for _, w := range workers {
			if w.PID <= 0 || w.Slot < 1 || w.Nonce == "" || g.Number < 1 || seen[w.PID] || known != nil && known(w.PID) {
				continue
			}
			seen[w.PID] = true
			proc, err := findProcess(w.PID, w.Start)
			if err != nil {
				continue
			}
			if protocol.Meets(g.Protocol) {
				o.missing = append(o.missing, &orphan{gen: g, rec: w, proc: proc})
				continue
			}
			proc.close()
			if w.State < WorkerIsDraining {
				o.foreign = fmt.Errorf("worker %d.%d of the last master, pid %d, speaks protocol %s, this release %s: %w",
					g.Number, w.Slot, w.PID, g.Protocol, protocol, ErrIncompatible)
			}
		}
	}
	return o, nil
}

// Foreign is an error that wraps ErrIncompatible if some of those that serve speak
// no protocol which this build does: they go on by themselves.
func (o *Orphans) Foreign() error { return o.foreign }

// Next returns the number that the dead master would have given to its next
// generation.
func (o *Orphans) Next() int { return o.record.Next }

// Master returns the pid that the dead master had.
func (o *Orphans) Master() int { return o.record.PID }

// UID returns the user that they run as, 0 if it is the dead master's.
func (o *Orphans) UID() int { return o.record.UID }

// Without returns the record without the worker of that pid.
func (o *Orphans) Without(pid int) []byte {
	r := o.record
	r.Generations = slices.Clone(r.Generations)
	for i := range r.Generations {
		ws := slices.Clone(r.Generations[i].Workers)
		r.Generations[i].Workers = slices.DeleteFunc(ws, func(w childRecord) bool { return w.PID == pid })
	}
	return r.encode()
}

// Abandoned returns those of the dead master's listeners that are not among keys
// and that no supervisor holds.
func (o *Orphans) Abandoned(keys []string) (specs []listener.Spec) {
	for _, l := range o.record.Listeners {
		if !l.Shared && !slices.Contains(keys, l.Key) {
			specs = append(specs, l.Spec)
		}
	}
	return specs
}

// Missing returns the workers that live and have not come.
func (o *Orphans) Missing() []ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prune()
	var ids []ID
	for _, m := range o.missing {
		ids = append(ids, m.id())
	}
	return ids
}

// Done says whether all that live have come and been adopted.
func (o *Orphans) Done() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prune()
	return len(o.missing)+len(o.came) == 0
}

// prune forgets those who have died. Called locked.
func (o *Orphans) prune() {
	o.missing = slices.DeleteFunc(o.missing, func(m *orphan) bool {
		if m.proc.alive() {
			return false
		}
		m.close()
		return true
	})
}

// astray are the records of those who are not adopted yet, for the record of their
// next master.
func (o *Orphans) astray() []generationRecord {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prune()
	var gs []generationRecord
	for _, m := range slices.Concat(o.missing, o.came) {
		g := m.gen
		g.Workers = []childRecord{m.rec}
		gs = append(gs, g)
	}
	return gs
}

// comePause is how often it is looked whether all have come.
const comePause = 5 * time.Millisecond

// Wait returns when all that live have come, or when ctx ends.
func (o *Orphans) Wait(ctx context.Context) {
	for len(o.Missing()) > 0 {
		select {
		case <-time.After(comePause):
		case <-ctx.Done():
			return
		}
	}
}

// presentTime is what a worker has to present itself once it has connected.
const presentTime = time.Second

// Meet hears one who has connected, and takes ownership of f. An error says why
// it was turned away.
func (o *Orphans) Meet(f *os.File) error {
	pid, uid, err := peerOf(f)
	if err != nil {
		f.Close()
		return err
	}
	var m *orphan
	if uid == o.uid || uid == 0 || uid == o.record.UID {
		m = o.find(pid)
	}
	if m == nil {
		f.Close()
		return fmt.Errorf("process %d of user %d: %w", pid, uid, ErrStranger)
	}
	defer func() {
		o.mu.Lock()
		m.heard = false
		o.mu.Unlock()
	}()
	conn, err := ipc.NewConn(f)
	if err == nil {
		if err = o.hear(m, conn); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("worker %s: %w", m.id(), err)
	}
	return nil
}

func peerOf(f *os.File) (pid, uid int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	cerr := raw.Control(func(fd uintptr) { pid, uid, err = peer(int(fd)) })
	return pid, uid, errors.Join(cerr, err)
}

// find returns the orphan of that pid, one at a time.
func (o *Orphans) find(pid int) *orphan {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.missing {
		if m.rec.PID == pid && !m.heard {
			m.heard = true
			return m
		}
	}
	return nil
}

// hear takes the presence of m.
func (o *Orphans) hear(m *orphan, conn *ipc.Conn) error {
	_ = conn.SetReadDeadline(time.Now().Add(presentTime))
	f, err := conn.Recv()
	if err != nil {
		return fmt.Errorf("presence: %w", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	files := slices.Clone(f.Files)
	p, err := decode[presence](f.Payload)
	switch {
	case err != nil:
	case f.Type != msgPresent || f.Missing > 0:
		err = errProtocol
	case !protocol.Meets(p.Protocol):
		err = fmt.Errorf("it speaks protocol %s, this master %s: %w", p.Protocol, protocol, ErrIncompatible)
	case p.Nonce != m.rec.Nonce || p.Generation != m.gen.Number || p.Slot != m.rec.Slot:
		err = ErrStranger
	default:
		err = o.check(m, p, files)
	}
	if err != nil {
		closeForeign(files)
		return err
	}
	return o.admit(m, p, conn, files)
}

// check compares files with what the record says of them.
func (o *Orphans) check(m *orphan, p presence, files []int) error {
	listeners := len(m.rec.Listeners)
	if p.Draining {
		listeners, p.Sockets = 0, nil
	}
	of, fit := spans(p.Sockets, listeners, len(files)-trustFiles)
	if !fit {
		return fmt.Errorf("%w: %d files for %d listeners with %v sockets", errProtocol, len(files), listeners, p.Sockets)
	}
	for i, id := range []fileID{m.rec.Page, m.rec.Crash} {
		if identify(files[i]) != id || id == (fileID{}) {
			return fmt.Errorf("%w: file %d is not the one that it was given", errProtocol, i+1)
		}
	}
	place := 0
	for i, fd := range files[trustFiles:] {
		if place++; i == 0 || of[i] != of[i-1] {
			place = 0
		}
		key := m.rec.Listeners[of[i]]
		at := slices.IndexFunc(o.record.Listeners, func(l listenerRecord) bool { return l.Key == key })
		if at < 0 {
			continue // of a master before the one that died; not used
		}
		listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || listens == 0 || cookie(fd) != o.record.Listeners[at].cookie(place) || cookie(fd) == 0 {
			return fmt.Errorf("%w: listener %s is not the one that it was given", errProtocol, key)
		}
	}
	return nil
}

// admit makes m one that has come.
func (o *Orphans) admit(m *orphan, p presence, conn *ipc.Conn, files []int) error {
	binary, _ := m.proc.executable()
	env, err := m.proc.environ()
	if err != nil {
		env = os.Environ()
	}
	o.mu.Lock()
	at := slices.Index(o.missing, m)
	if at < 0 || o.closed || !m.proc.alive() {
		o.mu.Unlock()
		if binary != nil {
			binary.Close()
		}
		closeForeign(files)
		return ErrStranger
	}
	o.missing = slices.Delete(o.missing, at, at+1)
	m.conn, m.binary, m.env, m.draining = conn, binary, env, p.Draining
	m.page, m.crash = os.NewFile(uintptr(files[0]), "counters"), os.NewFile(uintptr(files[1]), "crash")
	o.bring(m, p, files[trustFiles:])
	pool := o.pool
	if pool == nil {
		o.came = append(o.came, m)
	}
	o.mu.Unlock()
	if pool != nil {
		return pool.late(m)
	}
	return nil
}

// bring keeps those sockets that nobody has brought before. Called locked.
func (o *Orphans) bring(m *orphan, p presence, fds []int) {
	if p.Draining {
		return // it has none
	}
	of, _ := spans(p.Sockets, len(m.rec.Listeners), len(fds)) // checked
	place := 0
	for i, fd := range fds {
		if place++; i == 0 || of[i] != of[i-1] {
			place = 0
		}
		key := m.rec.Listeners[of[i]]
		if o.spoken || !o.recorded(key) {
			unix.Close(fd)
			continue
		}
		for len(o.sockets[key]) <= place {
			o.sockets[key] = append(o.sockets[key], nil)
		}
		if o.sockets[key][place] != nil {
			unix.Close(fd)
			continue
		}
		o.sockets[key][place] = os.NewFile(uintptr(fd), key)
	}
}

// turnAway makes m one that has not come: it goes on by itself, and comes again.
func (o *Orphans) turnAway(m *orphan) {
	proc := m.proc
	again := &orphan{gen: m.gen, rec: m.rec, proc: proc}
	m.proc = nil
	m.close()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		proc.close()
		return
	}
	o.missing = append(o.missing, again)
}

func (o *Orphans) recorded(key string) bool {
	return slices.ContainsFunc(o.record.Listeners, func(l listenerRecord) bool { return l.Key == key })
}

// Listener returns a listener that the dead master shared with its workers, nil
// if none of them has brought it. It is the caller's.
func (o *Orphans) Listener(key string) *os.File {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sockets[key]) == 0 {
		return nil
	}
	f := o.sockets[key][0]
	o.sockets[key][0] = nil
	o.taken[key] = f != nil
	return f
}

// Have says that the new master has the listener of that key from elsewhere. What
// the dead one had beside it stays to be taken.
func (o *Orphans) Have(key string) {
	if f := o.Listener(key); f != nil {
		f.Close()
	}
}

// beside returns the other sockets of a listener that has been taken.
func (o *Orphans) beside(key string) (fs []*os.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.taken[key] {
		return nil
	}
	for _, f := range o.sockets[key] {
		if f != nil {
			fs = append(fs, f)
		}
	}
	delete(o.sockets, key)
	return fs
}

// DropListeners gives up those that nobody has taken: whoever held them on would
// keep their addresses.
func (o *Orphans) DropListeners() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, fs := range o.sockets {
		if !o.taken[key] {
			closeFiles(fs)
			delete(o.sockets, key)
		}
	}
	o.spoken = true
}

// Bound returns the address of that listener.
func (o *Orphans) Bound(key string) string {
	for _, l := range o.record.Listeners {
		if l.Key == key {
			return l.Bound
		}
	}
	return ""
}

// Close turns everybody away who has not been adopted; they go on by themselves.
func (o *Orphans) Close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, m := range slices.Concat(o.missing, o.came) {
		m.close()
	}
	o.missing, o.came = nil, nil
	for _, fs := range o.sockets {
		closeFiles(fs)
	}
	clear(o.sockets)
}

func closeFiles(fs []*os.File) {
	for _, f := range fs {
		f.Close() // or it is nil
	}
}
