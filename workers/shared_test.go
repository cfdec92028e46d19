//go:build unix

package workers

import (
	"bufio"
	"bytes"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

// echoed is a connection that a worker answers, until its deadline.
type echoed struct {
	net.Conn
	t *testing.T
}

// knows returns what its worker says is shared.
func (c echoed) knows() string {
	c.t.Helper()
	if _, err := c.Write([]byte("?")); err != nil {
		c.t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return line
}

// shared asks each of the two workers, by way of round-robin.
func (p *testPool) shared() (answers []string) {
	p.t.Helper()
	for range 2 {
		c := p.echo()
		answers = append(answers, c.knows())
		c.Close()
	}
	return answers
}

// learn waits until both workers know of it.
func (p *testPool) learn(what string) {
	p.t.Helper()
	want := []string{what + "\n", what + "\n"}
	var got []string
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if got = p.shared(); slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the workers have %q, want %q", got, what)
		}
	}
}

// know requires that both workers know of it already.
func (p *testPool) know(what string) {
	p.t.Helper()
	if got := p.shared(); !slices.Equal(got, []string{what + "\n", what + "\n"}) {
		p.t.Errorf("the workers have %q, want %q", got, what)
	}
}

func (p *testPool) share(what string) {
	p.t.Helper()
	if err := p.Share([]byte(what)); err != nil {
		p.t.Fatal(err)
	}
}

func TestWhatIsSharedReachesEveryWorker(t *testing.T) {
	p := newTestPool(t, bind(t), testOptions)
	p.commit(1)
	p.know("nothing")
	p.share("one")
	p.learn("one")
	p.commit(2)
	p.know("one") // before it was ready

	if err := p.prepare(3, "serve"); err != nil {
		t.Fatal(err)
	}
	p.share("two") // to one that is ready and does not serve
	p.learn("two")
	if err := p.Commit(3); err != nil {
		t.Fatal(err)
	}
	p.learn("two")

	s, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	victim := s.Generations[len(s.Generations)-1].Workers[0]
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for e := next[WorkerExited](p); e.PID != victim.PID; e = next[WorkerExited](p) {
	}
	for e := next[WorkerReady](p); e.Worker != victim.ID; e = next[WorkerReady](p) {
	}
	p.know("two")

	if err := p.Share(make([]byte, MaxShared+1)); err == nil {
		t.Error("too much was taken")
	}
	most := bytes.Repeat([]byte("x"), MaxShared)
	p.share(string(most))
	p.learn(string(most))
	p.Stop(0, "test")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
	p.share("late")
}
