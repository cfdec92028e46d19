package framework

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// job is one call of a scripted job, which runs until the test says how it ends.
type job struct {
	what    string
	ctx     context.Context
	verdict chan control.Verdict
}

func (j *job) end(v control.Verdict) { j.verdict <- v }

// script is jobs that the test decides.
type script struct {
	began    chan *job
	done     chan string // stop, stop now, scale, pass on
	running  atomic.Int32
	overlap  atomic.Bool
	stubborn bool // takes no notice of its context
}

func newScript() *script {
	return &script{began: make(chan *job, 1), done: make(chan string, 1000)}
}

func (s *script) run(ctx context.Context, what string) control.Verdict {
	if s.running.Add(1) > 1 {
		s.overlap.Store(true)
	}
	defer s.running.Add(-1)
	j := &job{what, ctx, make(chan control.Verdict)}
	s.began <- j
	gone := ctx.Done()
	if s.stubborn {
		gone = nil
	}
	select {
	case v := <-j.verdict:
		return v
	case <-gone:
		return control.Verdict{Reason: context.Cause(ctx).Error()}
	}
}

func (s *script) start(ctx context.Context) control.Verdict           { return s.run(ctx, "start") }
func (s *script) reload(ctx context.Context) control.Verdict          { return s.run(ctx, "reload") }
func (s *script) rollback(ctx context.Context, _ int) control.Verdict { return s.run(ctx, "rollback") }
func (s *script) upgrade(ctx context.Context) control.Verdict         { return s.run(ctx, "upgrade") }

func (s *script) scale(r control.ScaleRequest) control.Verdict {
	s.done <- "scale"
	return control.Verdict{OK: true, Action: control.ActionScale}
}

func (s *script) weigh(map[int]int) control.Verdict {
	s.done <- "weight"
	return control.Verdict{OK: true, Action: control.ActionWeight}
}

func (s *script) hasten() {}

func (s *script) stop(now bool, asked time.Time) control.Verdict {
	if time.Since(asked) < 0 || time.Since(asked) > time.Hour {
		panic("asked at " + asked.String())
	}
	if now {
		s.done <- "stop now"
	} else {
		s.done <- "stop"
	}
	return control.Verdict{OK: true, Action: control.ActionStop}
}

func (s *script) passOn(w want) { s.done <- "pass on " + w.String() }

// court is an arbiter at work.
type court struct {
	t *testing.T
	*script
	*arbiter
	quit  chan struct{}
	ended chan control.Verdict
}

func newCourt(t *testing.T) *court { return courtOf(t, newScript()) }

// newDeafCourt has jobs that take no notice of being given up.
func newDeafCourt(t *testing.T) *court {
	s := newScript()
	s.stubborn = true
	return courtOf(t, s)
}

func courtOf(t *testing.T, s *script) *court {
	c := &court{t: t, script: s, arbiter: newArbiter(s), quit: make(chan struct{}), ended: make(chan control.Verdict, 1)}
	go func() { c.ended <- c.arbiter.run(c.quit) }()
	t.Cleanup(func() {
		select {
		case <-c.arbiter.ended:
		default:
			close(c.quit)
			<-c.arbiter.ended
		}
		if s.overlap.Load() {
			t.Error("two jobs ran at the same time")
		}
	})
	return c
}

func (c *court) next(what string) *job {
	c.t.Helper()
	select {
	case j := <-c.began:
		if j.what != what {
			c.t.Fatalf("began %s, want %s", j.what, what)
		}
		return j
	case <-time.After(patience):
		c.t.Fatalf("%s does not begin", what)
		return nil
	}
}

func (c *court) did(what string) {
	c.t.Helper()
	select {
	case d := <-c.done:
		if d != what {
			c.t.Fatalf("did %q, want %q", d, what)
		}
	case <-time.After(patience):
		c.t.Fatalf("did not %q", what)
	}
}

// nothing has happened when a question put after the fact is answered.
func (c *court) nothing() {
	c.t.Helper()
	c.state()
	select {
	case j := <-c.began:
		c.t.Fatalf("began %s", j.what)
	case d := <-c.done:
		c.t.Fatalf("did %q", d)
	default:
	}
}

// reply is the answer to one request, and fails the test at a second one.
type reply chan control.Verdict

func (c *court) asks(w want) reply {
	c.t.Helper()
	r, once := make(reply, 1), new(atomic.Bool)
	c.ask(request{want: w, signal: true, answer: func(v control.Verdict) {
		if once.Swap(true) {
			c.t.Errorf("%s was answered twice, then with %+v", w, v)
			return
		}
		r <- v
	}})
	return r
}

func (c *court) verdict(r reply) control.Verdict {
	c.t.Helper()
	select {
	case v := <-r:
		return v
	case <-time.After(patience):
		c.t.Fatal("no answer")
		return control.Verdict{}
	}
}

func (c *court) open(r reply) {
	c.t.Helper()
	c.state()
	select {
	case v := <-r:
		c.t.Fatalf("answered already: %+v", v)
	default:
	}
}

func (c *court) is(p phase) {
	c.t.Helper()
	late := time.After(patience)
	for c.state() != p {
		select {
		case <-late:
			c.t.Fatalf("%s, want %s", c.state(), p)
		default:
		}
	}
}

// enter brings the arbiter into a phase; the job is what goes on in it.
func (c *court) enter(p phase) (*job, reply) {
	c.t.Helper()
	j := c.next("start")
	if p == starting {
		return j, nil
	}
	j.end(control.Verdict{OK: true, Generation: 1})
	c.is(serving)
	switch p {
	case reloading:
		r := c.asks(wantReload)
		return c.next("reload"), r
	case upgrading:
		r := c.asks(wantUpgrade)
		return c.next("upgrade"), r
	case stopping:
		if v := c.verdict(c.asks(wantStop)); !v.OK {
			c.t.Fatalf("stop: %+v", v)
		}
		c.did("stop")
	}
	return nil, nil
}
