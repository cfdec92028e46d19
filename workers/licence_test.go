//go:build unix

package workers

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers/ipc"
)

// licenceTest is a worker in this process, and the socket of its master.
type licenceTest struct {
	*master
	w      *Worker
	l      *Listener
	socket *listener.Listener
}

func newLicenceTest(t *testing.T) *licenceTest {
	t.Helper()
	m, w := newMaster(t, "tcp")
	l := bind(t)
	o := &licenceTest{master: m, w: w, l: w.listeners[0], socket: l}
	o.l.mu.Lock()
	o.l.info = ListenerInfo{Name: "main", Network: "tcp", Address: l.Addr().String()}
	o.l.mu.Unlock()
	t.Cleanup(func() { w.renounce(false) })
	return o
}

// license gives the worker a licence and requires its answer.
func (o *licenceTest) license(answer uint8) {
	o.t.Helper()
	fd, err := rawDup(o.socket.File())
	if err != nil {
		o.t.Fatal(err)
	}
	defer unix.Close(fd)
	o.says(msgLicence, encodeLicence(0), []int{fd}, answer)
}

func (o *licenceTest) says(typ uint8, payload []byte, fds []int, answer uint8) {
	o.t.Helper()
	if err := o.conn.Send(typ, payload, fds); err != nil {
		o.t.Fatal(err)
	}
	o.wants(answer)
}

func (o *licenceTest) dial() net.Conn {
	o.t.Helper()
	c, err := net.Dial("tcp", o.socket.Addr().String())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// accepting begins an Accept, and returns when it waits for the kernel.
func (o *licenceTest) accepting() <-chan net.Conn {
	o.t.Helper()
	got := make(chan net.Conn, 1)
	go func() {
		c, _ := o.l.Accept()
		got <- c
	}()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		o.l.mu.Lock()
		leads := o.l.leads
		o.l.mu.Unlock()
		if leads {
			return got
		}
		if time.Now().After(end) {
			o.t.Fatal("nobody waits for the kernel")
		}
	}
}

func received(t *testing.T, got <-chan net.Conn) net.Conn {
	t.Helper()
	select {
	case c := <-got:
		if c != nil {
			t.Cleanup(func() { c.Close() })
		}
		return c
	case <-time.After(patience):
		t.Fatal("Accept does not return")
		return nil
	}
}

// What ends a licence, and what does not.
func TestLicence(t *testing.T) {
	o := newLicenceTest(t)
	o.dial()
	if !o.socket.Queued() {
		t.Fatal("it accepts without a licence")
	}
	o.license(msgLicensed)
	mustAccept(t, o.l)
	got := o.accepting()
	o.dial()
	if c := received(t, got); c == nil || c.RemoteAddr() == nil {
		t.Errorf("accepted %v", c)
	}
	o.license(msgLicensed) // another socket in place of the first
	o.dial()
	mustAccept(t, o.l)
	if n := o.w.counters.own[0].Load(); n != 3 || o.w.Taken() != 3 {
		t.Errorf("%d connections counted as accepted, %d as taken, want 3", n, o.w.Taken())
	}

	got = o.accepting()
	o.says(msgUnlicence, encodeLicence(0), nil, msgUnlicensed)
	o.dial()
	if !o.socket.Queued() {
		t.Error("it accepts without a licence")
	}
	client := o.tcp(7) // the Accept that waited for the kernel gets what comes from the master
	if received(t, got) == nil {
		t.Error("Accept fails")
	}
	o.wants(msgAck, 7)
	client.Close()
	o.says(msgUnlicence, encodeLicence(0), nil, msgUnlicensed) // it has none

	o.license(msgLicensed)
	mustAccept(t, o.l)                                         // what had waited
	o.says(msgCommit, nil, nil, msgUnlicensed)                 // its master accepts
	o.license(msgLicensed)                                     //
	if err := o.conn.Send(msgStopping, nil, nil); err != nil { // it lasts until the drain
		t.Fatal(err)
	}
	o.synced()
	o.dial()
	mustAccept(t, o.l)
	got = o.accepting()
	if err := o.conn.Send(msgDrain, encode(DrainOrder{}), nil); err != nil {
		t.Fatal(err)
	}
	<-o.w.Drain() // which it hears last
	o.dial()
	if !o.socket.Queued() {
		t.Error("it accepts although it drains")
	}
	o.license(msgUnlicensed)
	o.w.Finish()
	if c := received(t, got); c != nil {
		t.Error("Accept of one that drains returns a connection")
	}
}

// What comes from the master is not kept waiting by the wait for the kernel.
func TestAcceptOfALicensedWorkerSeesTheMaster(t *testing.T) {
	o := newLicenceTest(t)
	o.license(msgLicensed)
	for id := range uint64(5) {
		got := o.accepting()
		o.tcp(id)
		if received(t, got) == nil {
			t.Fatal("Accept fails")
		}
		o.wants(msgAck, id)
		got = o.accepting()
		o.dial()
		if received(t, got) == nil {
			t.Fatal("Accept fails")
		}
	}
	got := o.accepting()
	if err := o.l.Close(); err != nil {
		t.Fatal(err)
	}
	if c := received(t, got); c != nil {
		t.Error("Accept returns a connection after Close")
	}
}

// Several goroutines may be in Accept: each gets one.
func TestManyAcceptByOneLicence(t *testing.T) {
	o := newLicenceTest(t)
	o.license(msgLicensed)
	got := make(chan net.Conn, 8)
	for range cap(got) {
		go func() {
			c, _ := o.l.Accept()
			got <- c
		}()
	}
	for range cap(got) {
		o.dial()
	}
	for range cap(got) {
		if received(t, got) == nil {
			t.Fatal("Accept fails")
		}
	}
}

// A licence that cannot be had is said to be none.
func TestBadLicencesAreRefused(t *testing.T) {
	o := newLicenceTest(t)
	fd, err := rawDup(o.socket.File())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	o.says(msgLicence, encodeLicence(0), nil, msgUnlicensed)
	o.says(msgLicence, encodeLicence(1), []int{fd}, msgUnlicensed)
	o.says(msgLicence, encodeLicence(0), []int{fd, fd}, msgUnlicensed)
	for _, payload := range [][]byte{nil, {0}, {0, 0, 0}} {
		if err := o.conn.Send(msgLicence, payload, []int{fd}); err != nil {
			t.Fatal(err)
		}
		if err := o.conn.Send(msgUnlicence, payload, nil); err != nil {
			t.Fatal(err)
		}
	}
	o.synced() // without an answer
	o.w.estate.mu.Lock()
	defer o.w.estate.mu.Unlock()
	if len(o.w.estate.own) > 0 {
		t.Errorf("it accepts on %v", o.w.estate.own)
	}
}

// An orphan that had a licence goes on by it.
func TestLicenceOutlivesTheMaster(t *testing.T) {
	o := newLicenceTest(t)
	o.license(msgLicensed)
	got := o.accepting()
	o.conn.Close()
	<-o.w.orphaned // it was not trusted, and resigns, but has not been told to drain
	o.dial()
	if received(t, got) == nil {
		t.Error("Accept fails")
	}
	o.dial()
	o.w.Finish() // nobody else would take it
	if c, err := o.l.Accept(); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if _, err := o.l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// What a worker says of licences is believed as far as it was asked.
func TestAnswersToLicences(t *testing.T) {
	for _, tt := range []struct {
		name string
		was  licenceState
		owed int32
		typ  uint8
		n    uint16
		is   licenceState
		bad  bool
	}{
		{"it has it", licenceSent, 1, msgLicensed, 0, licenceHeld, false},
		{"it cannot have it", licenceSent, 1, msgUnlicensed, 0, licenceNone, false},
		{"it has given it back", licenceWithdrawn, 1, msgUnlicensed, 0, licenceNone, false},
		{"its master accepts", licenceHeld, 1, msgUnlicensed, 0, licenceNone, false},
		{"unasked", licenceHeld, 0, msgUnlicensed, 0, licenceHeld, true},
		{"unasked for", licenceNone, 0, msgLicensed, 0, licenceNone, true},
		{"twice", licenceHeld, 1, msgLicensed, 0, licenceHeld, true},
		{"what it has not", licenceWithdrawn, 1, msgLicensed, 0, licenceWithdrawn, true},
		{"another's", licenceSent, 1, msgLicensed, 1, licenceSent, true},
	} {
		c := &child{state: WorkerServing, licences: []licenceState{tt.was}}
		c.owed.Store(tt.owed)
		p := &Pool{posts: make(chan func(), 1), licensing: make(news), frozen: true}
		err := p.receive(c, ipc.Frame{Type: tt.typ, Payload: encodeLicence(tt.n)})
		if err == nil { // it has been asked
			err = p.licenceAnswered(c, tt.n, tt.typ == msgLicensed)
		}
		bad := errors.Is(err, errProtocol)
		if c.licences[0] != tt.is || bad != tt.bad {
			t.Errorf("%s: %v, accused %v; want %v, %v", tt.name, c.licences[0], bad, tt.is, tt.bad)
		}
	}
}

// An answer that does not come is like one to a ping.
func TestOwedAnswers(t *testing.T) {
	c, now := &child{}, time.Now()
	if d := c.owes(now, false); d != 0 {
		t.Errorf("it owes nothing, and that since %v", d)
	}
	c.owing = now.Add(-time.Minute)
	if d := c.owes(now, false); d != time.Minute {
		t.Errorf("it owes it since %v", d)
	}
	if d := c.owes(now, true); d != 0 || c.owes(now.Add(time.Second), false) != time.Second {
		t.Errorf("time that stood still counts: %v", d)
	}
}

func TestLicencesAreHandedOver(t *testing.T) {
	c := &child{}
	c.inheritLicences(childRecord{Listeners: []string{"a", "b", "c"}, Licences: []licenceState{licenceHeld, licenceWithdrawn, 99}, Owed: 2})
	if want := []licenceState{licenceHeld, licenceWithdrawn, licenceNone}; !slices.Equal(c.licences, want) || c.owed.Load() != 2 || c.owing.IsZero() {
		t.Errorf("%v, %d owed since %v", c.licences, c.owed.Load(), c.owing)
	}
	c = &child{}
	c.inheritLicences(childRecord{Listeners: []string{"a"}, Owed: -1}) // of a master that knew of none
	if !slices.Equal(c.licences, []licenceState{licenceNone}) || c.owed.Load() != 0 || !c.owing.IsZero() {
		t.Errorf("%v, %d owed since %v", c.licences, c.owed.Load(), c.owing)
	}
}

func TestPoolWhoseWorkersAccept(t *testing.T) {
	o := testOptions
	l := bind(t)
	o.Accept = map[string]listener.AcceptMode{l.Spec().Key(): listener.AcceptByWorkers}
	p := newTestPool(t, l, o)
	p.commit(1)
	const asked = 10
	for range asked {
		p.echo()
	}
	s, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	if g := s.Generations[0]; s.Listeners[0].Mode != listener.AcceptByWorkers || s.Listeners[0].Accepted != asked ||
		g.Ledger.Acknowledged != asked || g.Workers[0].Accepted+g.Workers[1].Accepted != asked || g.Workers[0].Dispatched+g.Workers[1].Dispatched != 0 || !s.Accepting {
		t.Errorf("%+v", s)
	}
	p.balanced()

	// Those who come in the place of others accept, too.
	for _, w := range s.Generations[0].Workers {
		if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	next[WorkerExited](p)
	next[WorkerExited](p)
	p.echo()
	p.commit(2)
	p.echo()
	s, err = p.Status()
	if err != nil {
		t.Fatal(err)
	}
	if s.Serving != 2 || s.Listeners[0].Accepted != asked+2 { // also of those who are dead
		t.Errorf("%+v", s)
	}
	p.balanced()
	p.Stop(0, "test")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
}
