//go:build unix

package workers

import (
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

// weightsNow are the weights of the workers that serve, by slot.
func (p *testPool) weightsNow() map[int]int {
	p.t.Helper()
	s, err := p.Status()
	if err != nil {
		p.t.Fatal(err)
	}
	all := map[int]int{}
	for _, g := range s.Generations {
		for _, w := range g.Workers {
			if g.Number == s.Serving && w.State == WorkerServing {
				all[w.ID.Slot] = w.Weight
			}
		}
	}
	return all
}

func wantWeights(t *testing.T, what string, got, want map[int]int) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: weights %v, want %v", what, got, want)
	}
}

// dispatches makes the generations to come ask for a policy.
func (p *testPool) dispatches(name string) {
	p.t.Helper()
	options := p.cfg.Options
	if err := p.do(func() {
		p.cfg.Options = func(in Intro) (Options, []string, error) {
			o, env, err := options(in)
			o.Dispatch = name
			return o, env, err
		}
	}); err != nil {
		p.t.Fatal(err)
	}
}

func TestWeightsBelongToTheGenerationAndItsSlots(t *testing.T) {
	p := newTestPool(t, bind(t), testOptions)
	refused := func(weights map[int]int, why string) {
		t.Helper()
		if _, err := p.SetWeights(weights); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v: %v, want %q", weights, err, why)
		}
	}
	refused(map[int]int{1: 2}, "no generation serves")
	p.commit(1)
	refused(map[int]int{1: 2}, "dispatch by round-robin, which knows no weights")
	wantWeights(t, "round-robin", p.weightsNow(), map[int]int{1: -1, 2: -1})

	p.dispatches("weighted:3")
	p.commit(2)
	wantWeights(t, "at first", p.weightsNow(), map[int]int{1: 3, 2: 1})
	refused(map[int]int{1: 2, 3: 1}, "slot 3: expected 1 to 2")
	refused(map[int]int{0: 1, 1: 2}, "slot 0: expected 1 to 2")
	refused(map[int]int{1: 2, 2: -1}, "weight -1 of slot 2: expected 0 to 1000")
	refused(map[int]int{1: 2, 2: 1001}, "weight 1001 of slot 2: expected 0 to 1000")
	wantWeights(t, "refused ones", p.weightsNow(), map[int]int{1: 3, 2: 1})

	set := func(weights, want map[int]int) {
		t.Helper()
		all, err := p.SetWeights(weights)
		if err != nil {
			t.Fatal(err)
		}
		wantWeights(t, "answered", all, want)
		wantWeights(t, "set", p.weightsNow(), want)
	}
	set(map[int]int{2: 7}, map[int]int{1: 3, 2: 7})
	set(map[int]int{1: 0}, map[int]int{1: 0, 2: 7}) // the other keeps its own

	// Whoever is in the slot.
	s, _ := p.Status()
	for _, g := range s.Generations {
		for _, w := range g.Workers {
			if w.ID == (ID{Generation: 2, Slot: 2}) {
				_ = syscall.Kill(w.PID, syscall.SIGKILL)
			}
		}
	}
	for e := next[WorkerExited](p); e.Worker != (ID{Generation: 2, Slot: 2}); e = next[WorkerExited](p) {
	}
	next[WorkerReady](p)
	wantWeights(t, "after a respawn", p.weightsNow(), map[int]int{1: 0, 2: 7})
	if err := p.Scale(3); err != nil {
		t.Fatal(err)
	}
	next[WorkerReady](p)
	wantWeights(t, "of three", p.weightsNow(), map[int]int{1: 0, 2: 7, 3: 1})

	// They are handed over, and stay should nobody take them.
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	refused(map[int]int{1: 2}, "handed over")
	data, files, err := p.Handover()
	if err != nil {
		t.Fatal(err)
	}
	in, err := ParseHandover(data, files)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range in.state.Generations {
		if g.Number == 2 {
			wantWeights(t, "handed over", g.Weights, map[int]int{1: 0, 2: 7})
		}
	}
	in.Close()
	p.Thaw()
	wantWeights(t, "after a thaw", p.weightsNow(), map[int]int{1: 0, 2: 7, 3: 1})

	p.commit(3)
	wantWeights(t, "of the next generation", p.weightsNow(), map[int]int{1: 3, 2: 1, 3: 1})
	p.Stop(0, "test")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
	if _, err := p.SetWeights(map[int]int{1: 1}); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

// TestGenerationBringsItsPolicy: in force when it serves, and the same one as long
// as its name is the same.
func TestGenerationBringsItsPolicy(t *testing.T) {
	p := newTestPool(t, bind(t), testOptions)
	found := map[string]int{}
	if err := p.do(func() {
		p.cfg.Policies = func(name string) (dispatch.Policy, error) {
			found[name]++
			if name == "lost" {
				return nil, errors.New("nobody has it")
			}
			return dispatch.Parse(name)
		}
	}); err != nil {
		t.Fatal(err)
	}
	inForce := func(want string) {
		t.Helper()
		if s, err := p.Status(); err != nil || len(s.Generations) == 0 || s.Generations[len(s.Generations)-1].Policy != want {
			t.Errorf("%+v, %v, want %s", s.Generations, err, want)
		}
	}
	for i, name := range []string{"", "round-robin", "hash", "hash", "lost", "lost", "weighted"} {
		p.dispatches(name)
		if err := p.prepare(i+1, "serve"); err != nil {
			t.Fatal(err)
		}
		before := p.d.choice.name // nothing is dispatched meanwhile
		if err := p.Commit(i + 1); err != nil {
			t.Fatal(err)
		}
		switch want := name; want {
		case "", "lost":
			inForce("round-robin")
		default:
			inForce(want)
		}
		if name == "weighted" && before != "round-robin" {
			t.Errorf("%s was in force before the commit", before)
		}
		p.echo().Close()
	}
	if e := next[PolicyFailed](p); e.Policy != "lost" || e.Reason != "nobody has it" {
		t.Errorf("%+v", e)
	}
	_ = p.do(func() {
		if want := map[string]int{"hash": 1, "lost": 1, "weighted": 1}; !maps.Equal(found, want) {
			t.Errorf("asked for %v, want %v", found, want)
		}
	})
	p.balanced()
	p.Stop(0, "test")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
}
