//go:build unix

package workers

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/listener"
)

// testPool is a pool whose workers are this binary, with the task "serve".
type testPool struct {
	*Pool
	t      *testing.T
	l      *listener.Listener
	events chan Event
	ran    chan error
}

func newTestPool(t *testing.T, l *listener.Listener, o Options) *testPool {
	t.Helper()
	p := &testPool{t: t, l: l, events: make(chan Event, waitingEvents), ran: make(chan error, 1)}
	env := append(os.Environ(), taskEnv+"=serve")
	p.Pool = New(Config{
		Argv: []string{"app"}, Dir: "/", Listeners: []*listener.Listener{l},
		OnEvent: func(e Event) { p.events <- e },
		Options: func(Intro) (Options, []string, error) { return o, env, nil },
	})
	go func() { p.ran <- p.Run() }()
	return p
}

func (p *testPool) prepare(number int, task string) error {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := Pin(exe)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.Prepare(context.Background(), Spec{
		Number: number, Binary: b, Env: append(os.Environ(), taskEnv+"="+task), ReadyTimeout: patience, KillTimeout: patience,
	})
}

func (p *testPool) commit(number int) {
	p.t.Helper()
	if err := p.prepare(number, "serve"); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Commit(number); err != nil {
		p.t.Fatal(err)
	}
}

// next waits for an event of type E.
func next[E Event](p *testPool) E {
	p.t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case e := <-p.events:
			if e, ok := e.(E); ok {
				return e
			}
		case <-timeout:
			s, _ := p.Status()
			var e E
			p.t.Fatalf("no %T; status %+v", e, s)
		}
	}
}

// echo makes a connection and sees a worker answer it.
func (p *testPool) echo() echoed {
	p.t.Helper()
	c, err := net.Dial("tcp", p.l.Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	again(p.t, c)
	return echoed{c, p.t}
}

func again(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func (p *testPool) ended() error {
	p.t.Helper()
	select {
	case err := <-p.ran:
		return err
	case <-time.After(patience):
		s, _ := p.Status()
		p.t.Fatalf("the pool does not end; status %+v", s)
		return nil
	}
}

// balanced checks the books of all generations.
func (p *testPool) balanced() {
	p.t.Helper()
	s, err := p.Status()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, g := range s.Generations {
		l := g.Ledger
		sum := l.Acknowledged + l.Pending + l.Redispatched
		for _, n := range l.Refused {
			sum += n
		}
		if l.Accepted != sum {
			p.t.Errorf("generation %d does not balance: %+v", g.Number, l)
		}
	}
}

func bind(t *testing.T) *listener.Listener {
	t.Helper()
	l, err := listener.Bind(listener.NewSpec("tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

var testOptions = Options{
	Workers: 2, ReadyTimeout: patience, DrainTimeout: patience, KillTimeout: patience, HangTimeout: patience, MaxDraining: 3,
}

func TestPoolServesReloadsAndRespawns(t *testing.T) {
	p := newTestPool(t, bind(t), testOptions)
	p.commit(1)
	old := p.echo()
	if err := p.prepare(2, "exit 3"); err == nil {
		t.Fatal("a generation of workers that exit was prepared")
	}
	p.commit(3)
	p.echo()
	again(t, old) // served on by the draining generation
	old.Close()
	if e := next[GenerationDrained](p); e.Generation != 1 || e.Drained.Cut.Total() != 0 {
		t.Errorf("%+v", e)
	}
	s, err := p.Status()
	if err != nil || len(s.Generations) != 1 || len(s.Generations[0].Workers) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	victim := s.Generations[0].Workers[0]
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for e := next[WorkerExited](p); e.PID != victim.PID; e = next[WorkerExited](p) {
	}
	if e := next[WorkerForked](p); e.Worker != victim.ID || !e.Restart {
		t.Errorf("%+v", e)
	}
	next[WorkerReady](p)
	p.echo()
	p.balanced()
	p.Stop(0, "test")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
}

// Both pools are in this process, so the second cannot learn how its adopted
// workers ended; nor does it in life.
func TestLivePoolIsHandedOver(t *testing.T) {
	l := bind(t)
	p := newTestPool(t, l, testOptions)
	p.commit(1)
	held := p.echo()
	_ = p.do(func() { p.serving.weights = map[int]int{2: 5} }) // as SetWeights does
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	p.Thaw()
	p.echo().Close()
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	data, files, err := p.Handover()
	if err != nil {
		t.Fatal(err)
	}
	in, err := ParseHandover(data, files)
	if err != nil {
		t.Fatal(err)
	}
	p.Abandon()
	if err := p.ended(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, g := range p.generations {
		for _, c := range g.children {
			pids = append(pids, c.proc.pid)
			c.started.close() // as the end of the process would
			c.timer.Stop()
		}
		g.binary.Close()
	}
	for _, a := range p.acceptors {
		a.stop()
	}
	l.Resume()

	q := newTestPool(t, l, testOptions)
	if err := q.prepare(2, "serve"); err != nil {
		t.Fatal(err)
	}
	q.share("ours")
	if err := q.Adopt(in); err != nil {
		t.Fatal(err)
	}
	between, err := net.Dial("tcp", l.Addr().String()) // for those to come, whose listeners are ours
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	_ = between.SetDeadline(time.Now().Add(patience))
	_ = q.do(func() { wantWeights(t, "adopted", q.find(1).weights, map[int]int{2: 5}) })
	if s, err := q.Status(); err != nil || s.Accepting || s.Listeners[0].Accepted > 2 {
		t.Errorf("before the commit: %+v, %v", s, err)
	}
	if err := q.Commit(2); err != nil {
		t.Fatal(err)
	}
	again(t, between)
	again(t, held)
	for held.knows() != "ours\n" { // its worker is an adopted one
	}
	q.echo()
	q.balanced()
	held.Close()
	for range 2 {
		if e := next[WorkerExited](q); e.Status != "unknown" || !e.Expected || e.Worker.Generation != 1 {
			t.Errorf("%+v", e)
		}
	}
	next[GenerationDrained](q)
	q.Stop(0, "test")
	if err := q.ended(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids { // ours after all
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
}

func TestGivingUpEndsThoughAReloadIsPrepared(t *testing.T) {
	o := testOptions
	o.GiveUpAfter = time.Millisecond
	o.Workers = 1
	p := newTestPool(t, bind(t), o)
	p.commit(1)
	if err := p.prepare(2, "serve"); err != nil { // and never committed
		t.Fatal(err)
	}
	_ = p.do(func() {
		p.giveUp(time.Now()) // somebody serves
		for _, c := range p.serving.children {
			p.kill(c, "test")
		}
		p.giveUp(time.Now())
		p.giveUp(time.Now().Add(time.Second))
	})
	if err := p.ended(); !errors.Is(err, ErrGaveUp) {
		t.Errorf("Run: %v, want ErrGaveUp", err)
	}
}
