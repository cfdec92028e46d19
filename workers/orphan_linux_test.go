package workers

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers/ipc"
)

// orphanTest is a worker in this process that was trusted with a listener.
type orphanTest struct {
	*master
	w      *Worker
	l      *Listener
	socket *listener.Listener // the master's
	path   string             // where the next master listens
	bonds  chan Bond
}

func newOrphanTest(t *testing.T, limit time.Duration) *orphanTest {
	t.Helper()
	m, w := newMaster(t, "tcp")
	w.nonce = "secret"
	l, err := listener.Bind(listener.NewSpec("tcp", "127.0.0.1:0", listener.Name("main")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	o := &orphanTest{master: m, w: w, l: w.listeners[0], socket: l, path: filepath.Join(t.TempDir(), "adopt"), bonds: make(chan Bond, 16)}
	o.l.info = ListenerInfo{Name: "main", Network: "tcp", Address: l.Addr().String()}
	w.OnBond(func(b Bond) { o.bonds <- b })
	o.mark(&w.ready, true)
	t.Cleanup(func() { // no orphan at the end of the test
		w.renounce(false)
		w.timeIsUp()
	})
	if err := m.conn.Send(msgCommit, nil, nil); err != nil {
		t.Fatal(err)
	}
	o.trust(o.conn, limit)
	o.synced()
	return o
}

func (o *orphanTest) mark(b *bool, value bool) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	*b = value
}

func (o *orphanTest) trusted() trust {
	o.w.estate.mu.Lock()
	defer o.w.estate.mu.Unlock()
	return *o.w.estate.trust
}

// trust gives the worker what a master gives it.
func (o *orphanTest) trust(c *ipc.Conn, limit time.Duration) {
	o.t.Helper()
	fds := []int{memfd(o.t, "page"), memfd(o.t, "crash"), listening(o.t, o.socket)}
	defer closeAllFDs(fds)
	if err := c.Send(msgTrust, encode(trust{Socket: o.path, Timeout: limit}), fds); err != nil {
		o.t.Fatal(err)
	}
}

func memfd(t *testing.T, name string) int {
	t.Helper()
	f, err := anonFile(name, pageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return duplicate(t, f)
}

func listening(t *testing.T, l *listener.Listener) int {
	t.Helper()
	return duplicate(t, l.File())
}

func duplicate(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := rawDup(f)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// die is the death of the master.
func (o *orphanTest) die() {
	o.t.Helper()
	o.conn.Close()
	o.becomes(Orphan)
}

func (o *orphanTest) becomes(want Bond) {
	o.t.Helper()
	select {
	case b := <-o.bonds:
		if b != want {
			o.t.Fatalf("the worker is %v, want %v", b, want)
		}
	case <-time.After(patience):
		o.t.Fatalf("the worker does not become %v", want)
	}
}

func (o *orphanTest) dial() net.Conn {
	o.t.Helper()
	c, err := net.Dial("tcp", o.socket.Addr().String())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// adopter is the next master.
type adopter struct {
	t *testing.T
	*net.UnixListener
}

func (o *orphanTest) adopter() adopter {
	o.t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: o.path, Net: "unixpacket"})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { l.Close() })
	_ = l.SetDeadline(time.Now().Add(patience))
	return adopter{o.t, l}
}

// meet takes the presence of a worker.
func (a adopter) meet() (*ipc.Conn, presence, int) {
	a.t.Helper()
	c, err := a.AcceptUnix()
	if err != nil {
		a.t.Fatal(err)
	}
	f, err := c.File()
	c.Close()
	if err != nil {
		a.t.Fatal(err)
	}
	conn, err := ipc.NewConn(f)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	m, err := conn.Recv()
	if err != nil || m.Type != msgPresent {
		a.t.Fatalf("message %d, %v; want a presence", m.Type, err)
	}
	n := len(m.Files)
	closeAllFDs(m.Files)
	p, err := decode[presence](m.Payload)
	if err != nil {
		a.t.Fatal(err)
	}
	return conn, p, n
}

func (o *orphanTest) say(c *ipc.Conn, typ uint8, payload []byte) {
	o.t.Helper()
	if err := c.Send(typ, payload, nil); err != nil {
		o.t.Fatal(err)
	}
}

func TestOrphanAcceptsUntilItsNewMasterDoes(t *testing.T) {
	o := newOrphanTest(t, time.Minute)
	client := o.dial()
	if !queuedAfter(o.socket) {
		t.Fatal("somebody has accepted while there was a master")
	}
	o.die()
	c := mustAccept(t, o.l)
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	a := o.adopter()
	next, p, files := a.meet()
	if p.Nonce != "secret" || p.Draining || files != trustFiles+1 {
		t.Errorf("presence %+v with %d files", p, files)
	}
	o.dial() // it accepts still
	mustAccept(t, o.l)
	o.say(next, msgAdopted, nil)
	o.becomes(Bonded)
	o.dial() // and still
	mustAccept(t, o.l)

	o.say(next, msgCommit, nil)
	o.say(next, msgPing, nil)
	if f, err := next.Recv(); err != nil || f.Type != msgPong {
		t.Fatalf("message %d, %v; want nothing but the answer to a ping", f.Type, err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := o.l.Accept()
		accepted <- c
	}()
	o.dial()
	if !queuedAfter(o.socket) {
		t.Error("it accepts although its master does")
	}
	// Its master can die in its turn.
	next.Close()
	o.becomes(Orphan)
	(<-accepted).Close()
	next, p, files = a.meet()
	if p.Draining || files != trustFiles+1 {
		t.Errorf("presence %+v with %d files", p, files)
	}
	o.say(next, msgAdopted, nil)
	o.becomes(Bonded)
	o.say(next, msgDrain, encode(DrainOrder{}))
	<-o.w.Drain()
	o.w.Finish()
	if _, err := o.l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of one that drains: %v", err)
	}
	o.dial()
	if !queuedAfter(o.socket) {
		t.Error("it accepts although it drains")
	}
	next.Close()
	_, p, files = a.meet() // it drains under the next one
	if !p.Draining || files != trustFiles {
		t.Errorf("presence %+v with %d files", p, files)
	}
}

// queuedAfter says whether a connection waits although somebody had the time to
// accept it.
func queuedAfter(l *listener.Listener) bool {
	time.Sleep(20 * time.Millisecond)
	return l.Queued()
}

// What the application does not ask for stays with the kernel, for others.
func TestOrphanTakesWhatIsAskedFor(t *testing.T) {
	o := newOrphanTest(t, time.Minute)
	o.die()
	o.dial()
	if !queuedAfter(o.socket) {
		t.Error("it has taken what nobody has asked for")
	}
	mustAccept(t, o.l)
	if o.socket.Queued() {
		t.Error("what was accepted waits still")
	}
}

// What a master had sent is its worker's when that master is dead, and is never
// mentioned to another.
func TestConnectionsOfADeadMasterAreKept(t *testing.T) {
	o := newOrphanTest(t, time.Minute)
	var clients []*net.TCPConn
	for id := range uint64(3) {
		clients = append(clients, o.tcp(id))
	}
	o.synced()
	for id, fd := range o.fds {
		unix.Close(fd)
		delete(o.fds, id)
	}
	o.die()
	next, _, _ := o.adopter().meet()
	o.say(next, msgAdopted, nil)
	o.becomes(Bonded)
	mustAccept(t, o.l)
	mustAccept(t, o.l)
	if err := o.l.Close(); err != nil {
		t.Fatal(err)
	}
	c := mustAccept(t, o.l) // a Close has nobody to send it back to
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	_ = clients[2].SetReadDeadline(time.Now().Add(patience))
	if _, err := clients[2].Read(make([]byte, 1)); err != nil {
		t.Errorf("the last client: %v", err)
	}
	o.say(next, msgPing, nil)
	if f, err := next.Recv(); err != nil || f.Type != msgPong {
		t.Errorf("message %d, %v; want nothing but the answer to a ping", f.Type, err)
	}
}

// A returned connection without a receipt is the worker's, whoever comes next.
func TestReturnUnderWayIsKeptWhenTheMasterDies(t *testing.T) {
	o := newOrphanTest(t, time.Minute)
	o.tcp(1)
	c := mustAccept(t, o.l)
	o.wants(msgAck, 1)
	taken := make(chan Reception, 1)
	go func() { taken <- o.w.Return(o.l, c, Moved{}) }()
	f, err := o.conn.Recv()
	if err != nil || f.Type != msgReturn {
		t.Fatalf("message %d, %v", f.Type, err)
	}
	closeAllFDs(f.Files)
	o.die()
	if got := <-taken; got != NotNow {
		t.Errorf("without a receipt: %v, want it kept for now", got)
	}
	if got := o.w.Return(o.l, c, Moved{}); got != NotNow {
		t.Errorf("without a master: %v, want it kept for now", got)
	}
}

func TestWorkersThatAreNoOrphans(t *testing.T) {
	for name, prepare := range map[string]func(o *orphanTest){
		"the service stops": func(o *orphanTest) { o.say(o.conn, msgStopping, nil) },
		"it has been asked to leave": func(o *orphanTest) {
			if err := o.w.Leave(); err != nil {
				o.t.Fatal(err)
			}
			o.wants(msgLeave)
		},
		"it was never committed": func(o *orphanTest) { o.mark(&o.w.committed, false) },
		"it drains":              func(o *orphanTest) { o.say(o.conn, msgDrain, encode(DrainOrder{})) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrphanTest(t, time.Minute)
			prepare(o)
			o.synced()
			o.conn.Close()
			select {
			case <-o.w.Orphaned():
			case <-time.After(patience):
				t.Fatal("it waits for another master")
			}
			o.dial()
			if !queuedAfter(o.socket) {
				t.Error("it accepts")
			}
		})
	}
}

func TestOrphanGivesUp(t *testing.T) {
	o := newOrphanTest(t, 50*time.Millisecond)
	o.die()
	o.becomes(Resigned)
	<-o.w.Orphaned()
	if err := o.w.Leave(); err == nil {
		t.Error("there is somebody to be asked")
	}
	// What the kernel has queued by then is accepted: it may be the last copy.
	o.dial()
	o.dial()
	o.w.Finish()
	mustAccept(t, o.l)
	mustAccept(t, o.l)
	if _, err := o.l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after that: %v", err)
	}
}

func TestTrustIsChecked(t *testing.T) {
	o := newOrphanTest(t, time.Minute)
	for name, send := range map[string]func() error{
		"no time":  func() error { return o.conn.Send(msgTrust, encode(trust{Socket: "x"}), []int{0, 0, 0}) },
		"no files": func() error { return o.conn.Send(msgTrust, encode(trust{Socket: "x", Timeout: 1}), nil) },
		"garbage":  func() error { return o.conn.Send(msgTrust, []byte("x"), []int{0, 0, 0}) },
	} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		o.synced()
		if o.trusted().Socket != o.path {
			t.Errorf("%s: it was believed", name)
		}
	}
	o.trust(o.conn, time.Hour) // a new one replaces it, and leaks nothing
	o.synced()
	if got := o.trusted(); got.Timeout != time.Hour {
		t.Errorf("trust %+v", got)
	}
}

// Nobody will start a master once the supervisor has let the leash go, whether
// there is a master at that time or not.
func TestOrphanLeavesWhenItsLeashEnds(t *testing.T) {
	for name, when := range map[string][]string{
		"as an orphan": {"die", "let go"}, "before": {"let go", "die"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrphanTest(t, time.Minute)
			held, supervisor, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer supervisor.Close()
			page, crash, socket, leash := memfd(t, "page"), memfd(t, "crash"), listening(t, o.socket), duplicate(t, held)
			held.Close()
			err = o.conn.Send(msgTrust, encode(trust{Socket: o.path, Timeout: time.Hour, Leash: true}), []int{page, crash, socket, leash})
			closeAllFDs([]int{page, crash, socket, leash})
			if err != nil {
				t.Fatal(err)
			}
			o.synced()
			if got := o.trusted(); got.Timeout != time.Hour {
				t.Fatalf("trust %+v", got)
			}
			for _, what := range when {
				switch what {
				case "let go":
					supervisor.Close()
					for end := time.Now().Add(patience); name == "before" && !o.final(); time.Sleep(time.Millisecond) {
						if time.Now().After(end) {
							t.Fatal("it has not noticed")
						}
					}
				case "die":
					o.master.conn.Close()
					if name != "before" {
						o.becomes(Orphan)
						select {
						case <-o.w.Orphaned():
							t.Fatal("it leaves although its supervisor is there")
						case <-time.After(20 * time.Millisecond):
						}
					}
				}
			}
			if name != "before" { // it was an orphan never
				o.becomes(Resigned)
			}
			<-o.w.Orphaned()
			if got := o.w.Deserted(); got != o.path {
				t.Errorf("deserted at %q, want %q", got, o.path)
			}
		})
	}
}

func (o *orphanTest) final() bool {
	o.w.estate.mu.Lock()
	defer o.w.estate.mu.Unlock()
	return o.w.estate.final
}
