package dispatch_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

// weigh makes a worker with room for each weight; slots are from 1.
func weigh(weights ...int) []dispatch.Worker {
	ws := make([]dispatch.Worker, len(weights))
	for i, w := range weights {
		ws[i] = dispatch.Worker{Slot: i + 1, Free: 100, Weight: w}
	}
	return ws
}

func TestWeightedSpreadsTheShares(t *testing.T) {
	type step struct {
		ws   []dispatch.Worker
		want []int
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"nobody", []step{{nil, []int{-1}}}},
		{"nginx's example", []step{{weigh(5, 1, 1), []int{1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 3, 1, 1}}}},
		{"two to one", []step{{weigh(2, 1), []int{1, 2, 1, 1, 2, 1}}}},
		{"equal ones are a round-robin", []step{{weigh(1, 1, 1), []int{1, 2, 3, 1, 2, 3}}, {weigh(7, 7, 7), []int{1, 2, 3, 1}}}},
		{"nothing for nothing", []step{{weigh(0, 1, 0, 1), []int{2, 4, 2, 4}}}},
		{"all of them nothing", []step{{weigh(0, 0, 0), []int{1, 2, 3, 1, 2, 3}}}},
		{"the others are full", []step{{full(weigh(1, 0, 0), 1), []int{2, 3, 2, 3}}, {weigh(1, 0, 0), []int{1, 1}}}},
		{"all are full", []step{{full(weigh(1, 0), 1, 2), []int{-1, -1}}}},
		{"a full one is skipped and gains nothing meanwhile", []step{
			{full(weigh(3, 1, 1), 1), []int{2, 3, 2, 3}}, {weigh(3, 1, 1), []int{1, 2, 1, 3, 1}},
		}},
		{"a change counts at once", []step{
			{weigh(1000, 1), []int{1, 1, 1, 1, 1, 1, 1, 1}}, {weigh(1, 1000), []int{2, 2, 2, 2, 2, 2, 2, 2}}, {weigh(1, 1), []int{1, 2, 1, 2}},
		}},
		{"one goes and comes back", []step{
			{weigh(2, 1), []int{1, 2}}, {weigh(2, 1)[:1], []int{1, 1, 1}}, {weigh(2, 1), []int{1, 1, 2, 1, 1, 2, 1}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := dispatch.Weighted()
			for i, s := range tt.steps {
				if got := picks(p, s.ws, len(s.want)); !slices.Equal(got, s.want) {
					t.Errorf("step %d: picked %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// TestWeightedSharesAreExact: in a round of as many connections as the sum of
// the weights, each slot gets as many as its weight says, and at no time one
// more or fewer than its share.
func TestWeightedSharesAreExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		weights := make([]int, 1+r.IntN(6))
		total := 0
		for i := range weights {
			weights[i] = r.IntN(20)
			total += weights[i]
		}
		if total == 0 {
			continue
		}
		p, ws := dispatch.Weighted(), weigh(weights...)
		got := make([]int, len(weights))
		for n := 1; n <= 3*total; n++ {
			got[p.Pick(dispatch.Conn{}, ws)]++
			for i, w := range weights {
				if ahead := got[i]*total - n*w; ahead > len(weights)*total || ahead < -len(weights)*total {
					t.Fatalf("weights %v: after %d connections %v", weights, n, got)
				}
				if n%total == 0 && got[i] != n/total*w {
					t.Fatalf("weights %v: after %d rounds %v", weights, n/total, got)
				}
			}
		}
	}
}

func TestWeightedListenersHaveRoundsOfTheirOwn(t *testing.T) {
	p, ws := dispatch.Weighted(), weigh(1, 1)
	for i := range 6 {
		for l := range 2 {
			if got := ws[p.Pick(dispatch.Conn{Listener: l}, ws)].Slot; got != i%2+1 {
				t.Errorf("connection %d of listener %d: slot %d", i, l, got)
			}
		}
	}
}

func TestInitialWeights(t *testing.T) {
	p := dispatch.Weighted(3, 0).(dispatch.ByWeight)
	for slot, want := range map[int]int{1: 3, 2: 0, 3: 1, 1024: 1, 0: 1} {
		if got := p.Weight(slot); got != want {
			t.Errorf("slot %d: %d, want %d", slot, got, want)
		}
	}
}

func TestPoliciesAreParsedByTheirNames(t *testing.T) {
	for _, p := range []dispatch.Policy{
		dispatch.RoundRobin(), dispatch.Weighted(), dispatch.Weighted(0), dispatch.Weighted(3, 1, dispatch.MaxWeight),
		dispatch.LeastConnections(), dispatch.Hash(),
	} {
		same, err := dispatch.Parse(p.Name())
		if err != nil || same.Name() != p.Name() || fmt.Sprintf("%T", same) != fmt.Sprintf("%T", p) {
			t.Errorf("%q: %T %v", p.Name(), same, err)
		}
		if w, ok := p.(dispatch.ByWeight); ok && same.(dispatch.ByWeight).Weight(1) != w.Weight(1) {
			t.Errorf("%q has other weights", p.Name())
		}
	}
	for name, want := range map[string]string{
		"":                              "expected round-robin, weighted, least-connections or hash",
		"Weighted":                      "expected round-robin, weighted, least-connections or hash",
		"hash:":                         "expected hash without parameters",
		"least-connections:":            "expected least-connections without parameters",
		"weighted:":                     "expected weighted:W,W,... with weights from 0 to 1000",
		"weighted:1,,2":                 "expected weighted:W,W,... with weights from 0 to 1000",
		"weighted:-1":                   "expected weighted:W,W,... with weights from 0 to 1000",
		"weighted:1001":                 "expected weighted:W,W,... with weights from 0 to 1000",
		"weighted:1 2":                  "expected weighted:W,W,... with weights from 0 to 1000",
		"weighted:99999999999999999999": "expected weighted:W,W,... with weights from 0 to 1000",
	} {
		if p, err := dispatch.Parse(name); err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v, want %q", name, p, err, want)
		}
	}
}
