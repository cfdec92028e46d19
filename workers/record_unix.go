//go:build unix

package workers

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
)

// A master keeps a record of its pool for the one that has to go on should it
// be killed: who its workers are, and which sockets they share. It is written
// off the pool's goroutine, whenever something has changed, one write at a time.
//
// A worker is trusted to live on only when a record that names it has been
// written. Else it could hold a port for which nobody would know it.

// poolRecord is what the record holds. Environments are not in it: they hold
// secrets, and each worker has its own.
type poolRecord struct {
	Protocol    Versions           `json:"protocol"` // that can read it
	Clocks      *reading           `json:"clocks,omitempty"`
	PID         int                `json:"pid"`           // of the master
	Start       uint64             `json:"start"`         // of the master, as that of a worker
	UID         int                `json:"uid,omitempty"` // of the workers; 0: the master's
	Next        int                `json:"next"`          // number of the next generation
	Override    int                `json:"override"`
	Drained     Drained            `json:"drained"`
	Listeners   []listenerRecord   `json:"listeners"`
	Generations []generationRecord `json:"generations"`
}

// listenerRecord is a socket that the master and its workers share.
type listenerRecord struct {
	Key    string        `json:"key"`
	Spec   listener.Spec `json:"spec"`
	Bound  string        `json:"bound"` // address
	Cookie uint64        `json:"cookie"`
	Beside []uint64      `json:"beside,omitempty"` // cookies of the sockets of other slots
	Shared bool          `json:"shared,omitempty"` // with a supervisor
}

// cookie is that of the socket at a place in l; 0 if there is none.
func (l listenerRecord) cookie(place int) uint64 {
	switch {
	case place == 0:
		return l.Cookie
	case place <= len(l.Beside):
		return l.Beside[place-1]
	}
	return 0
}

// fileID names an open file of which there may be several descriptors.
type fileID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

func identify(fd int) fileID {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return fileID{}
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}
}

func identifyFile(f *os.File) (id fileID) {
	raw, err := f.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { id = identify(int(fd)) })
	}
	return id
}

// recording is the state of it. But for changed, it is the pool's goroutine's.
type recording struct {
	write   func([]byte) error // nil: no record is kept
	socket  string             // where this master's successor can be found
	leash   *os.File           // of the supervisor; may be nil
	changed atomic.Bool
	busy    bool
	idle    chan struct{} // closed when the last write has ended; nil before the first
	failing bool
	sockets int           // counts changes of which sockets there are
	done    chan struct{} // closed and renewed with each write
}

// KeepRecord makes the pool keep a record by write, which gets nil when there is
// nobody to record and is never called twice at a time. Workers that may live on
// without a master are told that socket is where the next one listens. leash, if
// it is not nil, is the reading end of a pipe: when its writing end is closed,
// nobody will start another master, and they finish and leave. It stays the
// caller's.
//
// A master that is to replace another begins when that one has stopped.
func (p *Pool) KeepRecord(socket string, leash *os.File, write func([]byte) error) {
	if !canOutlive {
		return
	}
	_ = p.do(func() {
		p.record.write, p.record.socket, p.record.leash = write, socket, leash
		p.record.changed.Store(true)
	})
}

// Rewrite writes the record again, though nothing has changed: it is gone. It
// returns when it is there, or cannot be written, or after a second.
func (p *Pool) Rewrite() error {
	late := time.After(recordWait)
	asked := false
	for {
		var written chan struct{}
		failed := false
		err := p.do(func() {
			r := &p.record
			if !asked {
				asked = true
				r.changed.Store(true)
			}
			p.note()
			if failed = r.failing && !r.busy; r.busy || r.changed.Load() && !p.frozen {
				written = r.done
			}
		})
		switch {
		case err != nil:
			return err
		case failed:
			return errNotWritten
		case written == nil:
			return nil
		}
		select {
		case <-written:
		case <-late:
			return errNotWritten
		case <-p.ended:
			return ErrStopped
		}
	}
}

var errNotWritten = errors.New("the record cannot be written")

// note begins to write what has changed, if nothing is being written.
func (p *Pool) note() {
	r := &p.record
	if r.write == nil || r.busy || p.frozen || !r.changed.Swap(false) {
		return
	}
	data, named := p.describeRecord()
	r.busy = true
	idle, sockets := make(chan struct{}), r.sockets
	r.idle = idle
	go func() {
		err := r.write(data)
		close(idle)
		p.post(func() { p.noted(named, sockets, err) })
	}()
}

// rest waits for a write under way, so that what is written is not written after
// the end of the pool.
func (p *Pool) rest() {
	if p.record.idle == nil {
		return
	}
	select {
	case <-p.record.idle:
	case <-time.After(recordWait):
	}
}

func (p *Pool) noted(named []*child, sockets int, err error) {
	r := &p.record
	r.busy = false
	close(r.done)
	r.done = make(chan struct{})
	if err != nil {
		if !r.failing {
			p.emit(RecordFailed{Reason: err.Error()})
		}
		r.failing = true // the next tick tries again
		return
	}
	if r.failing {
		p.emit(RecordWritten{})
	}
	r.failing = false
	if sockets != r.sockets {
		return // it is out of date already
	}
	for _, c := range named {
		c.recorded = true
	}
	p.entrustAll()
}

// describeRecord is the record as of now, with the workers that are in it; nil
// if there are none.
func (p *Pool) describeRecord() (data []byte, named []*child) {
	var keys []string
	for _, a := range p.acceptors {
		keys = append(keys, a.key)
	}
	var gs []generationRecord
	p.d.mu.Lock() // of the ledgers
	for _, g := range p.generations {
		if g.options.OrphanTimeout == 0 || g.state < GenerationIsReady || g.state > GenerationIsDraining {
			continue
		}
		r := g.record()
		for _, c := range g.children {
			if c.state >= WorkerIsReady && c.state <= WorkerIsDraining && c.identify() {
				cs := c.record(keys)
				cs.Start, cs.Page, cs.Crash = c.start, identifyFile(c.page), identifyFile(c.crash)
				r.Workers = append(r.Workers, cs)
				named = append(named, c)
			}
		}
		if len(r.Workers) > 0 {
			gs = append(gs, r)
		}
	}
	p.d.mu.Unlock()
	if gs = append(gs, p.orphans.astray()...); len(gs) == 0 {
		return nil, nil
	}
	r := poolRecord{
		Protocol: protocol, PID: os.Getpid(), Next: p.highest + 1, Override: p.override, Drained: p.drained, Generations: gs,
	}
	r.Start, _ = startTime(r.PID)
	if p.cfg.Account != nil {
		r.UID = int(p.cfg.Account.UID)
	}
	for i, a := range p.acceptors {
		l := listenerRecord{Key: a.key, Spec: a.l.Spec(), Bound: a.l.Addr().String(), Shared: a.l.Shared()}
		l.Cookie = cookieOf(a.l.File())
		for _, a := range p.queues[i].all()[1:] {
			l.Beside = append(l.Beside, cookieOf(a.l.File()))
		}
		r.Listeners = append(r.Listeners, l)
	}
	return r.encode(), named
}

func cookieOf(f *os.File) (c uint64) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { c = cookie(int(fd)) })
	}
	return c
}

// identify learns when c's process started, while its pid is surely its own.
func (c *child) identify() bool {
	if c.start == 0 {
		c.start, _ = startTime(c.proc.pid)
		if !c.proc.alive() {
			c.start = 0
		}
	}
	return c.start != 0
}

// recordWait bounds the wait of a commit for the record that names its workers.
const recordWait = time.Second

// awaitRecord waits until generation number is in the record, so that from the
// commit on there is no moment at which nobody would outlive this master.
func (p *Pool) awaitRecord(number int) {
	late := time.After(recordWait)
	for {
		var written chan struct{}
		if p.do(func() {
			if g := p.find(number); g != nil && p.unrecorded(g) {
				written = p.record.done
			}
		}) != nil || written == nil {
			return
		}
		select {
		case <-written:
		case <-late:
			return
		case <-p.ended:
			return
		}
	}
}

// unrecorded says whether workers of g will be in a record that can be waited for.
func (p *Pool) unrecorded(g *generation) bool {
	r := &p.record
	if r.write == nil || r.failing || g.options.OrphanTimeout == 0 {
		return false
	}
	return slices.ContainsFunc(g.children, func(c *child) bool { return c.state == WorkerIsReady && !c.recorded })
}

// entrustAll entrusts the workers that serve with what they need to outlive this
// master.
func (p *Pool) entrustAll() {
	if p.serving == nil {
		return
	}
	for _, c := range p.serving.children {
		p.entrust(c)
	}
}

// entrust may fail for want of room or descriptors; the next tick tries again.
func (p *Pool) entrust(c *child) {
	limit := c.gen.options.OrphanTimeout
	if !c.recorded || c.entrusted || c.expected || c.state != WorkerServing || p.noOrphans || p.frozen || limit == 0 {
		return
	}
	ls, counts, ok := p.listenersOf(c)
	if !ok || len(ls) > maxTrusted {
		return
	}
	var fds []int
	defer func() { closeAllFDs(fds) }()
	files := append([]*os.File{c.page, c.crash}, ls...)
	if p.record.leash != nil {
		files = append(files, p.record.leash)
	}
	for _, f := range files {
		fd, err := rawDup(f)
		if err != nil {
			return
		}
		fds = append(fds, fd)
	}
	t := trust{Socket: p.record.socket, Timeout: limit, Leash: p.record.leash != nil, Sockets: counts}
	if c.conn.TrySend(msgTrust, encode(t), fds) == nil {
		c.entrusted = true
	}
}

// distrust is for when there are other sockets than the workers have copies of:
// they get them once the record has them, too.
func (p *Pool) distrust() {
	p.record.sockets++
	p.record.changed.Store(true)
	for _, g := range p.generations {
		for _, c := range g.children {
			c.recorded, c.entrusted = false, false
		}
	}
}

// listenersOf returns the sockets of the listeners of c's worker in its order, and
// how many each listener has; false if it has one that this master does not have.
func (p *Pool) listenersOf(c *child) (ls []*os.File, counts []int, ok bool) {
	n := len(p.acceptors)
	if c.keys != nil {
		n = len(c.keys)
	}
	for i := range n {
		at, ok := p.listenerOf(c, uint16(i))
		if !ok {
			return nil, nil, false
		}
		fs := p.queues[at].files()
		ls, counts = append(ls, fs...), append(counts, len(fs))
	}
	return ls, counts, true
}

// Stopping tells all workers that the service ends: none of them outlives its
// master from then on.
func (p *Pool) Stopping() {
	p.post(func() {
		p.noOrphans = true
		for _, g := range p.generations {
			for _, c := range g.children {
				if c.state >= WorkerIsReady && c.state <= WorkerIsDraining {
					c.say(msgStopping, nil)
				}
			}
		}
	})
}
