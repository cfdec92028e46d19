package workers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers/ipc"
)

// legacy is what a master has left, in which this process is its worker 3.2.
type legacy struct {
	t           *testing.T
	record      poolRecord
	page, crash int
	socket      *listener.Listener
	path        string
	met         chan error
}

func newLegacy(t *testing.T) *legacy {
	t.Helper()
	l, err := listener.Bind(listener.NewSpec("tcp", "127.0.0.1:0", listener.Name("main")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g := &legacy{
		t: t, page: memfd(t, "page"), crash: memfd(t, "crash"), socket: l,
		path: filepath.Join(t.TempDir(), "adopt"), met: make(chan error, 1),
	}
	t.Cleanup(func() { closeAllFDs([]int{g.page, g.crash}) })
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	fd := listening(t, l)
	defer unix.Close(fd)
	g.record = poolRecord{
		Protocol: protocol, Next: 5,
		Listeners: []listenerRecord{{Key: "tcp|a", Spec: l.Spec(), Bound: l.Addr().String(), Cookie: cookie(fd)}},
		Generations: []generationRecord{{Number: 3, State: GenerationIsServing, Protocol: protocol, Wanted: 2, Workers: []childRecord{{
			Listeners: []string{"tcp|a"}, Slot: 2, PID: os.Getpid(), Start: start, Nonce: "secret", State: WorkerServing,
			Page: identify(g.page), Crash: identify(g.crash),
		}}}},
	}
	return g
}

// open reads the record, and meets who connects.
func (g *legacy) open() *Orphans {
	g.t.Helper()
	o, err := ReadRecord(encode(g.record), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: g.path, Net: "unixpacket"})
	if err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f, err := c.File()
			c.Close()
			if err == nil {
				err = o.Meet(f)
			}
			g.met <- err
		}
	}()
	g.t.Cleanup(func() {
		l.Close()
		<-ended
		o.Close()
	})
	return o
}

func (g *legacy) presence() presence {
	return presence{Protocol: protocol, Nonce: "secret", Generation: 3, Slot: 2}
}

// files are those of a worker that serves; they are the caller's.
func (g *legacy) files() []int {
	return []int{g.dup(g.page), g.dup(g.crash), listening(g.t, g.socket)}
}

func (g *legacy) dup(fd int) int {
	g.t.Helper()
	n, err := fcntlDup(fd)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// present sends a first message, and returns what became of it.
func (g *legacy) present(typ uint8, payload []byte, files []int) (*ipc.Conn, error) {
	g.t.Helper()
	defer closeAllFDs(files)
	c, err := dialMaster(g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	if err := c.Send(typ, payload, files); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		g.t.Fatal(err)
	}
	select {
	case err := <-g.met:
		return c, err
	case <-time.After(patience):
		g.t.Fatal("nobody says what became of it")
		return nil, nil
	}
}

func TestWorkerOfADeadMasterIsKnown(t *testing.T) {
	g := newLegacy(t)
	o := g.open()
	if ids := o.Missing(); len(ids) != 1 || ids[0] != (ID{3, 2}) || o.Done() || o.Next() != 5 {
		t.Fatalf("missing %v, next %d", ids, o.Next())
	}
	if _, err := g.present(msgPresent, encode(g.presence()), g.files()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Wait(ctx)
	if ctx.Err() != nil || len(o.Missing()) != 0 {
		t.Error("it is missing still")
	}
	f := o.Listener("tcp|a")
	if f == nil || o.Listener("tcp|a") != nil || o.Listener("tcp|b") != nil {
		t.Fatal("the listener, once")
	}
	l, err := listener.FromFile(g.socket.Spec(), f)
	if err != nil || l.Addr().String() != o.Bound("tcp|a") {
		t.Fatalf("listener at %v, %v; want %s", l.Addr(), err, o.Bound("tcp|a"))
	}
	l.Close()
	// It is in the record of its next master until that has it.
	if gs := o.astray(); len(gs) != 1 || len(gs[0].Workers) != 1 || gs[0].Workers[0].PID != os.Getpid() {
		t.Errorf("astray %+v", gs)
	}
	if _, err := g.present(msgPresent, encode(g.presence()), g.files()); !errors.Is(err, ErrStranger) {
		t.Errorf("a second one: %v", err)
	}
}

func TestWhoIsNoWorkerOfADeadMasterIsTurnedAway(t *testing.T) {
	other, err := listener.Bind(listener.NewSpec("tcp", "127.0.0.1:0", listener.Name("other")))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	altered := func(f func(*presence)) func(g *legacy) (uint8, []byte, []int) {
		return func(g *legacy) (uint8, []byte, []int) {
			p := g.presence()
			f(&p)
			return msgPresent, encode(p), g.files()
		}
	}
	with := func(f func(g *legacy, files []int) []int) func(g *legacy) (uint8, []byte, []int) {
		return func(g *legacy) (uint8, []byte, []int) { return msgPresent, encode(g.presence()), f(g, g.files()) }
	}
	instead := func(i int, make func(g *legacy) int) func(g *legacy) (uint8, []byte, []int) {
		return with(func(g *legacy, files []int) []int {
			unix.Close(files[i])
			files[i] = make(g)
			return files
		})
	}
	null := func(g *legacy) int {
		fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			g.t.Fatal(err)
		}
		return fd
	}
	for name, message := range map[string]func(g *legacy) (uint8, []byte, []int){
		"wrong nonce":               altered(func(p *presence) { p.Nonce = "guess" }),
		"no nonce":                  altered(func(p *presence) { p.Nonce = "" }),
		"wrong generation":          altered(func(p *presence) { p.Generation = 4 }),
		"wrong slot":                altered(func(p *presence) { p.Slot = 1 }),
		"another protocol":          altered(func(p *presence) { p.Protocol = Versions{Newest: 4, Oldest: 3} }),
		"drains, and has listeners": altered(func(p *presence) { p.Draining = true }),
		"another message":           func(g *legacy) (uint8, []byte, []int) { return msgAck, appendID(nil, 1), nil },
		"garbage":                   func(g *legacy) (uint8, []byte, []int) { return msgPresent, []byte("{"), g.files() },
		"no files":                  func(g *legacy) (uint8, []byte, []int) { return msgPresent, encode(g.presence()), nil },
		"too few files": with(func(_ *legacy, files []int) []int {
			unix.Close(files[2])
			return files[:2]
		}),
		"too many files":               with(func(g *legacy, files []int) []int { return append(files, null(g), null(g)) }),
		"counters are a device":        instead(0, null),
		"counters are another file":    instead(0, func(g *legacy) int { return memfd(g.t, "page") }),
		"counters are the crash file":  instead(0, func(g *legacy) int { return g.dup(g.crash) }),
		"crash file is a socket":       instead(1, func(g *legacy) int { return listening(g.t, g.socket) }),
		"listener is a file":           instead(2, func(g *legacy) int { return g.dup(g.page) }),
		"listener is a connection":     instead(2, func(g *legacy) int { return socket(g.t) }),
		"listener is another listener": instead(2, func(g *legacy) int { return listening(g.t, other) }),
	} {
		t.Run(name, func(t *testing.T) {
			g := newLegacy(t)
			o := g.open()
			c, err := g.present(message(g))
			if err == nil {
				t.Fatal("it was believed")
			}
			t.Log(err)
			if len(o.Missing()) != 1 || o.Listener("tcp|a") != nil {
				t.Error("something of it was taken")
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if f, err := c.Recv(); err == nil {
				t.Errorf("it is answered by %d", f.Type)
			}
			// It can come as it should.
			if _, err := g.present(msgPresent, encode(g.presence()), g.files()); err != nil {
				t.Errorf("the worker itself: %v", err)
			}
		})
	}
}

func TestProcessesThatAreNotInTheRecordAreStrangers(t *testing.T) {
	g := newLegacy(t)
	p, _ := startTask(t, "stay")
	defer func() {
		_ = p.signal(unix.SIGKILL)
		p.wait()
	}()
	w := &g.record.Generations[0].Workers[0]
	start := w.Start
	w.PID = p.pid
	if w.Start, _ = startTime(p.pid); w.Start == start {
		t.Skip("both were started in the same moment")
	}
	o := g.open()
	if n := len(o.Missing()); n != 1 {
		t.Fatalf("%d are missing", n)
	}
	// This process knows everything, and is not the one.
	for range 50 {
		if _, err := g.present(msgPresent, encode(g.presence()), g.files()); !errors.Is(err, ErrStranger) {
			t.Fatalf("a stranger: %v", err)
		}
	}
	if !p.alive() {
		t.Error("the process in the record was harmed")
	}

	w.Start = start // the pid was another's once
	g.path += "2"
	if o := g.open(); len(o.Missing()) != 0 {
		t.Error("a reused pid is believed")
	}
}

// Who connects and says nothing holds up nobody for long, itself included.
func TestSilentWorkerIsTurnedAway(t *testing.T) {
	g := newLegacy(t)
	o := g.open()
	c, err := dialMaster(g.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case err := <-g.met:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("turned away for %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it is waited for")
	}
	if _, err := g.present(msgPresent, encode(g.presence()), g.files()); err != nil || len(o.Missing()) != 0 {
		t.Errorf("the worker itself: %v", err)
	}
}

func TestBadRecordsAreRefused(t *testing.T) {
	for _, data := range []string{"", "{", `{"pid":"1"}`, `[]`} {
		if o, err := ReadRecord([]byte(data), nil); err == nil || !strings.Contains(err.Error(), "record of the dead master") {
			t.Errorf("%q: %v, %v", data, o, err)
		}
	}
	g := newLegacy(t)
	good := g.record.Generations[0].Workers[0]
	for name, f := range map[string]func(*childRecord){
		"no pid": func(w *childRecord) { w.PID = 0 }, "negative pid": func(w *childRecord) { w.PID = -1 },
		"no slot": func(w *childRecord) { w.Slot = 0 }, "no nonce": func(w *childRecord) { w.Nonce = "" },
		"no start": func(w *childRecord) { w.Start = 0 },
	} {
		w := good
		f(&w)
		g.record.Generations[0].Workers = []childRecord{w}
		o, err := ReadRecord(encode(g.record), nil)
		if err != nil || len(o.Missing()) != 0 {
			t.Errorf("%s: %v, %v", name, o, err)
		}
		o.Close()
	}
	g.record.Generations[0].Workers = []childRecord{good, good}
	o, err := ReadRecord(encode(g.record), nil)
	if err != nil || len(o.Missing()) != 1 {
		t.Errorf("the same twice: %v, %v", o, err)
	}
	o.Close()
	if o, err = ReadRecord(encode(g.record), func(int) bool { return true }); err != nil || len(o.Missing()) != 0 {
		t.Errorf("those that are known: %v, %v", o, err)
	}
}

// The socket file of a listener that a supervisor holds is the supervisor's.
func TestAbandonedAreOnlyTheDeadMastersOwn(t *testing.T) {
	o := &Orphans{record: poolRecord{Listeners: []listenerRecord{
		{Key: "a", Spec: listener.Spec{Address: "/run/a"}},
		{Key: "b", Spec: listener.Spec{Address: "/run/b"}, Shared: true},
		{Key: "c", Spec: listener.Spec{Address: "/run/c"}},
	}}}
	got := o.Abandoned([]string{"c"})
	if len(got) != 1 || got[0].Address != "/run/a" {
		t.Errorf("%v are abandoned, want /run/a alone", got)
	}
}

func TestRecordOfVersion1IsRead(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	o, err := ReadRecord(fmt.Appendf(nil, recordOfVersion1, os.Getpid(), start), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if ids := o.Missing(); len(ids) != 1 || ids[0] != (ID{3, 2}) || o.Next() != 5 || o.Bound("tcp|a") != "127.0.0.1:80" || o.record.Override != 3 {
		t.Errorf("%v of %+v", ids, o.record)
	}
}

// Workers that live decide whether a record that this build cannot act on matters.
func TestRecordOfAnotherProtocol(t *testing.T) {
	later := Versions{Newest: 3, Oldest: 3}
	for _, tt := range []struct {
		name    string
		f       func(*poolRecord)
		foreign bool
	}{
		{"its workers serve", func(r *poolRecord) { r.Generations[0].Protocol = later }, true},
		{"its workers are ready", func(r *poolRecord) {
			r.Generations[0].Protocol, r.Generations[0].Workers[0].State = later, WorkerIsReady
		}, true},
		{"they drain", func(r *poolRecord) {
			r.Generations[0].Protocol, r.Generations[0].Workers[0].State = later, WorkerIsDraining
		}, false},
		{"they are dead", func(r *poolRecord) { r.Generations[0].Protocol, r.Generations[0].Workers[0].Start = later, 1 }, false},
		{"it cannot be read", func(r *poolRecord) { r.Protocol = later }, true},
		{"it cannot be read, and nobody lives", func(r *poolRecord) { r.Protocol, r.Generations[0].Workers = later, nil }, false},
	} {
		g := newLegacy(t)
		tt.f(&g.record)
		o, err := ReadRecord(encode(g.record), nil)
		switch {
		case err != nil || len(o.Missing()) != 0:
			t.Errorf("%s: %v, %v", tt.name, o, err)
		case !tt.foreign && o.Foreign() != nil:
			t.Errorf("%s: %v", tt.name, o.Foreign())
		case tt.foreign && (!errors.Is(o.Foreign(), ErrIncompatible) || !strings.Contains(o.Foreign().Error(), "speaks protocol 3, this release 1 to 2: no version is common to both")):
			t.Errorf("%s: %v", tt.name, o.Foreign())
		}
		o.Close()
	}
}
