//go:build unix

package workers

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/baton-go/baton/workers/ipc"
)

// The handover of a live pool to the next master: what it knows as JSON, what
// it holds as files. The pool that gives is frozen before and either thaws,
// because the upgrade failed, or its process ends without touching a worker.

// freezeTimeout bounds the wait for the readers of a pool that freezes.
const freezeTimeout = 2 * time.Second

// filesPerChild: socket, pidfd, counters, crash trace.
const filesPerChild = 4

// Freeze stops accepting, dispatching and reading, so that what Handover
// describes stays true. Workers go on serving what they have.
func (p *Pool) Freeze() error {
	for _, a := range p.sockets() {
		a.pause(pausedForHandover)
	}
	p.d.close(true)
	var readers []chan struct{}
	err := p.do(func() {
		p.endRoll(nil) // one that goes back: the next master is told of one that serves
		p.frozen = true
		for _, a := range p.sockets() { // some may just have been made
			a.pause(pausedForHandover)
		}
		p.leaveGroups()
		if p.record.busy { // the next master's comes after it
			readers = append(readers, p.record.done)
		}
		for _, g := range p.generations {
			for _, c := range g.children {
				_ = c.conn.SetReadDeadline(time.Unix(1, 0))
				readers = append(readers, c.readerDone)
			}
		}
	})
	late := time.After(freezeTimeout)
	for _, done := range readers {
		select {
		case <-done: // at once: its next receive fails
		case <-late:
			return errors.Join(err, fmt.Errorf("the pool does not come to rest within %v", freezeTimeout))
		}
	}
	return err
}

// Thaw takes everything up again where Freeze left it.
func (p *Pool) Thaw() {
	_ = p.do(func() {
		p.frozen = false
		p.record.changed.Store(true)
		p.lastTick = time.Now()
		for _, g := range p.generations {
			for _, c := range g.children {
				_ = c.conn.SetReadDeadline(time.Time{})
				c.readerDone = make(chan struct{})
				go p.read(c, c.readerDone)
				if !c.pinged.IsZero() {
					c.pinged = time.Now()
				}
			}
		}
		p.d.touchAges(time.Now())
		deferred := p.deferred
		p.deferred = nil
		for _, f := range deferred {
			f()
		}
		if p.serving != nil && p.serving.state == GenerationIsServing && !p.stopping {
			p.fill(p.serving)
		}
		p.license()
	})
	p.d.close(false)
	for _, a := range p.sockets() {
		a.resume(pausedForHandover)
	}
}

// Handover describes a frozen pool, and duplicates its files.
func (p *Pool) Handover() (data []byte, files []*os.File, err error) {
	if derr := p.do(func() { data, files, err = p.describe() }); derr != nil {
		return nil, nil, derr
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, nil, fmt.Errorf("hand over the workers: %w", err)
	}
	return data, files, nil
}

func (p *Pool) describe() (data []byte, files []*os.File, err error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	add := func(f *os.File, ferr error) {
		if ferr != nil {
			err = ferr
			return
		}
		files = append(files, f)
	}
	dup := func(f *os.File) { add(dupFile(f)) }
	hold := func(hs []held) []heldRecord {
		var out []heldRecord
		for _, h := range hs {
			fd, derr := dupFD(h.fd)
			add(fd, derr)
			r := heldRecord{ID: h.id, Generation: h.ledger.generation, Moved: h.moved, At: h.at, Consumed: h.consumed, Token: h.token != 0}
			if h.token != 0 {
				fd, derr := dupFD(h.token)
				add(fd, derr)
			}
			if h.listener != noListener {
				r.Listener = p.acceptors[h.listener].key
			}
			out = append(out, r)
		}
		return out
	}
	h := handover{Protocol: protocol, NextID: p.d.nextID, Override: p.override, Accepted: map[string]uint64{}, Drained: p.drained}
	for i, a := range p.acceptors {
		h.Accepted[a.key] = p.d.accepted[i]
	}
	h.Beside = p.besides()
	for _, key := range slices.Sorted(maps.Keys(h.Beside)) {
		for _, a := range p.queues[p.byKey[key]].all()[1:] {
			dup(a.l.File())
		}
	}
	h.Queue = hold(p.d.queue)
	keys := make([]string, len(p.acceptors))
	for i, a := range p.acceptors {
		keys[i] = a.key
	}
	for _, g := range p.generations {
		if g.state != GenerationIsServing && g.state != GenerationIsDraining {
			continue
		}
		gs := g.record()
		gs.Env = g.env
		dup(g.binary.file)
		for _, c := range g.children {
			if c.state < WorkerIsReady {
				continue // Abandon kills it
			}
			add(c.conn.Dup())
			add(c.proc.handle())
			dup(c.page)
			dup(c.crash)
			cs := c.record(keys)
			cs.Unacked = hold(c.window.unacked)
			gs.Workers = append(gs.Workers, cs)
		}
		h.Generations = append(h.Generations, gs)
	}
	return h.encode(), files, err
}

// record describes g without its workers and its environment.
func (g *generation) record() generationRecord {
	return generationRecord{
		Number: g.number, State: g.state, Protocol: g.speaks, Binary: *g.binary, Options: g.options, Wanted: g.wanted, Weights: g.weights,
		Ledger: g.ledger.status(0), Born: g.born, Served: g.served, Drained: g.drained,
		Outcome: g.outcome,
	}
}

// record describes c without the connections that it holds. ours are the keys
// of this master's listeners.
func (c *child) record(ours []string) childRecord {
	if c.keys != nil {
		ours = c.keys
	}
	return childRecord{
		Listeners: ours,
		Slot:      c.id.Slot, PID: c.proc.pid, State: c.state, Nonce: c.nonce, Born: c.born, Ready: c.ready,
		DrainBy: c.drainBy, Expected: c.expected, Restarts: c.gen.slot(c.id.Slot).restarts, Reason: c.reason, Report: c.report,
		Dispatched: c.window.dispatched, Brought: c.window.brought, Entrusted: c.entrusted, Fostered: c.window.fostered,
		Licences: c.licences, Owed: c.owed.Load(),
	}
}

func dupFD(fd int) (*os.File, error) {
	n, err := fcntlDup(fd)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(n), "connection"), nil
}

// Abandon makes Run return although workers live: another master has them. What
// could not be handed over, workers that were still starting, is killed.
func (p *Pool) Abandon() {
	p.post(func() {
		p.abandoned = true
		for _, g := range p.generations {
			for _, c := range g.children {
				if c.state == WorkerStarting {
					_ = c.proc.signal(syscall.SIGKILL)
				}
			}
		}
	})
}

// Inheritance is a decoded handover: checked, and not yet acted on.
type Inheritance struct {
	state handover
	files []*os.File
}

// ParseHandover checks what another master handed over. It owns files from
// then on; Close gives them up.
func ParseHandover(data []byte, files []*os.File) (*Inheritance, error) {
	in := &Inheritance{files: files}
	if err := json.Unmarshal(data, &in.state); err != nil {
		in.Close()
		return nil, fmt.Errorf("handover: %w", err)
	}
	if !protocol.Meets(in.state.Protocol) {
		in.Close()
		return nil, fmt.Errorf("handover is of protocol %s, this master speaks %s: %w", in.state.Protocol, protocol, ErrIncompatible)
	}
	theClocks.read(&in.state, in.state.Clocks)
	want := filesOf(in.state.Queue)
	for key, n := range in.state.Beside {
		if n < 0 || n > len(files) {
			in.Close()
			return nil, fmt.Errorf("handover describes %d sockets beside listener %s", n, key)
		}
		want += n
	}
	for _, g := range in.state.Generations {
		want++
		for _, w := range g.Workers {
			want += filesPerChild + filesOf(w.Unacked)
			if w.State < WorkerIsReady || w.State > WorkerIsGone || w.PID <= 0 || w.Slot < 1 {
				in.Close()
				return nil, fmt.Errorf("handover describes worker %d.%d with state %d and pid %d", g.Number, w.Slot, w.State, w.PID)
			}
		}
		if g.State != GenerationIsServing && g.State != GenerationIsDraining {
			in.Close()
			return nil, fmt.Errorf("handover describes generation %d with state %d", g.Number, g.State)
		}
		if !protocol.Meets(g.Protocol) {
			in.Close()
			return nil, fmt.Errorf("generation %d speaks protocol %s, this master %s: %w", g.Number, g.Protocol, protocol, ErrIncompatible)
		}
	}
	if want != len(files) {
		in.Close()
		return nil, fmt.Errorf("handover describes %d files and has %d", want, len(files))
	}
	return in, nil
}

// filesOf counts the files of connections.
func filesOf(hs []heldRecord) int {
	n := len(hs)
	for _, h := range hs {
		if h.Token {
			n++
		}
	}
	return n
}

// Close gives up what was inherited without acting on it.
func (in *Inheritance) Close() {
	for _, f := range in.files {
		f.Close()
	}
	in.files = nil
}

// Adopt makes another master's workers this pool's. It is called once the
// other master can no longer act on them; the Commit that follows drains them.
func (p *Pool) Adopt(in *Inheritance) error {
	var err error
	if derr := p.do(func() { err = p.adopt(in) }); derr != nil {
		in.Close()
		return derr
	}
	return err
}

func (p *Pool) adopt(in *Inheritance) error {
	next := func() *os.File {
		f := in.files[0]
		in.files = in.files[1:]
		return f
	}
	index := map[string]int{}
	for i, a := range p.acceptors {
		index[a.key] = i
	}
	var first error
	for _, key := range slices.Sorted(maps.Keys(in.state.Beside)) {
		var sockets []*os.File
		for range in.state.Beside[key] {
			sockets = append(sockets, next())
		}
		if err := p.regroup(key, sockets); err != nil {
			first = fmt.Errorf("adopt listener: %w", err)
		}
	}
	ledgers := map[int]*ledger{}
	serving := newLedger(0)
	for _, g := range in.state.Generations {
		ledgers[g.Number] = newLedger(g.Number)
		ledgers[g.Number].restore(g.Ledger)
		if g.State == GenerationIsServing {
			serving = ledgers[g.Number]
		}
	}
	hold := func(hs []heldRecord) (out []held) {
		for _, s := range hs {
			fd, err := takeFD(next())
			if err != nil {
				continue
			}
			token := 0
			if s.Token {
				if token, err = takeFD(next()); err != nil {
					token = 0
				}
			}
			h := held{
				token: token,
				id:    s.ID, fd: fd, listener: noListener, ledger: ledgers[s.Generation], sent: time.Now(),
				moved: s.Moved, at: s.At, consumed: s.Consumed,
			}
			if i, ok := index[s.Listener]; ok {
				h.listener = uint16(i)
			}
			if h.ledger == nil {
				// The generation that it was accepted for is gone already.
				h.ledger = serving
				serving.accepted++
			}
			out = append(out, h)
		}
		return out
	}
	var removed []int
	queue := slices.DeleteFunc(hold(in.state.Queue), func(h held) bool {
		if h.listener == noListener {
			h.ledger.refuse(refusedListener)
			removed = h.files(removed)
		}
		return h.listener == noListener
	})
	// Its workers number the listeners as its master did, and the next ones
	// will be there in a moment: what comes until then waits for those.
	p.succeeds = slices.ContainsFunc(p.generations, func(g *generation) bool { return g.state == GenerationIsReady })
	var adopted []*generation
	for _, gs := range in.state.Generations {
		g := &generation{
			number: gs.Number, state: gs.State, binary: adoptBinary(gs.Binary, next()), ledger: ledgers[gs.Number],
			options: gs.Options, wanted: gs.Wanted, weights: gs.Weights, env: gs.Env, slots: map[int]*slot{}, introduced: true, speaks: gs.Protocol,
			born: gs.Born, served: gs.Served, drained: gs.Drained, outcome: gs.Outcome,
		}
		for _, ws := range gs.Workers {
			conn, cerr := ipc.NewConn(next())
			proc, perr := adoptProcess(ws.PID, next())
			page, crash := next(), next()
			unacked := hold(ws.Unacked)
			if cerr != nil || perr != nil {
				// It is left to itself, with what it holds.
				first = fmt.Errorf("adopt worker %d.%d: %w", gs.Number, ws.Slot, firstOf(cerr, perr))
				(&started{proc: proc, conn: conn, page: page, crash: crash}).close()
				for _, h := range unacked {
					closeForeign(h.files(nil))
				}
				continue
			}
			c := &child{
				started: started{proc: proc, conn: conn, page: page, crash: crash, nonce: ws.Nonce},
				id:      ID{Generation: g.number, Slot: ws.Slot}, gen: g, state: ws.State, born: ws.Born, ready: ws.Ready,
				drainBy: ws.DrainBy, expected: ws.Expected, reason: ws.Reason, report: ws.Report, entrusted: ws.Entrusted, readerDone: make(chan struct{}),
				later: g.speaks.Newest > protocol.Newest,
			}
			c.window = p.d.newWindow(conn, ws.Slot, g.ledger)
			c.window.page = page
			c.keys, c.window.numbers = ws.Listeners, p.numbers(ws.Listeners)
			c.window.unacked, c.window.dispatched, c.window.brought = unacked, ws.Dispatched, ws.Brought
			c.window.fostered = ws.Fostered
			c.inheritLicences(ws)
			g.slot(ws.Slot).restarts = ws.Restarts
			if c.state == WorkerIsDraining {
				left := max(time.Until(c.drainBy), 0)
				c.setTimer(left+g.options.KillTimeout, p, func() { p.kill(c, "did not finish in time") })
			}
			g.children = append(g.children, c)
		}
		adopted = append(adopted, g)
	}
	in.Close()
	p.generations = slices.Concat(adopted, p.generations)
	p.override = in.state.Override
	p.drained = p.drained.With(in.state.Drained)
	p.d.mu.Lock()
	p.d.nextID = max(p.d.nextID, in.state.NextID)
	for key, n := range in.state.Accepted {
		if i, ok := index[key]; ok {
			p.d.accepted[i] += n
		}
	}
	p.d.queue = append(p.d.queue, queue...)
	p.d.mu.Unlock()
	for _, g := range adopted {
		if g.state == GenerationIsServing {
			p.serving = g
		}
		for _, c := range g.children {
			go p.read(c, c.readerDone)
			go p.watch(c)
			c.say(msgAdopted, encode(takeover{Protocol: protocol}))
			p.tell(c)
		}
		p.settle(g)
	}
	p.retarget()
	p.known = map[string]bool{}
	for key := range in.state.Accepted {
		p.known[key] = true
	}
	if p.serving != nil && !p.succeeds {
		p.acceptKnown()
	}
	closeForeign(removed)
	return first
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
