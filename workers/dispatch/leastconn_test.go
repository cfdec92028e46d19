package dispatch_test

import (
	"slices"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

// having makes a worker with room for each number of open connections.
func having(open ...int) []dispatch.Worker {
	ws := weigh(make([]int, len(open))...)
	for i, n := range open {
		ws[i].Open = n
	}
	return ws
}

// keep picks n times, and each connection stays open.
func keep(p dispatch.Policy, ws []dispatch.Worker, n int) (got []int) {
	for range n {
		i := p.Pick(dispatch.Conn{}, ws)
		ws[i].Open++
		got = append(got, ws[i].Slot)
	}
	return got
}

func TestLeastConnectionsFillsUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		ws   []dispatch.Worker
		want []int // of connections that stay
	}{
		{"equal ones in turn", having(0, 0, 0), []int{1, 2, 3, 1, 2, 3}},
		{"whoever has the fewest", having(5, 2, 4), []int{2, 2, 3, 2, 3, 1, 2, 3}},
		{"full ones are skipped", full(having(5, 2, 4), 2), []int{3, 1, 3, 1}},
		{"no more than three in a row", having(9, 0), []int{2, 2, 2, 1, 2, 2, 2, 1}},
		{"of the rest the fewest", having(9, 0, 8), []int{2, 2, 2, 3, 2, 2, 2, 1, 2, 2, 2, 3}},
		{"unless nobody else has room", full(having(9, 0), 1), []int{2, 2, 2, 2, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := keep(dispatch.LeastConnections(), tt.ws, len(tt.want)); !slices.Equal(got, tt.want) {
				t.Errorf("picked %v, want %v", got, tt.want)
			}
		})
	}
	p := dispatch.LeastConnections()
	if got := picks(p, full(having(0, 0), 1, 2), 2); !slices.Equal(got, []int{-1, -1}) {
		t.Errorf("of full ones %v are picked", got)
	}
	if got := picks(p, nil, 1); got[0] != -1 {
		t.Errorf("of nobody %v", got)
	}
}

// TestShortConnectionsGoInTurn: when all look idle, nobody is preferred, for any
// listener.
func TestShortConnectionsGoInTurn(t *testing.T) {
	p, ws := dispatch.LeastConnections(), having(0, 0, 0)
	for i := range 9 {
		for l := range 2 {
			if got := ws[p.Pick(dispatch.Conn{Listener: l}, ws)].Slot; got != i%3+1 {
				t.Errorf("connection %d of listener %d: slot %d", i, l, got)
			}
		}
	}
}

// TestLiarGetsThreeOfFour: a worker that says that it has nothing does not get
// everything.
func TestLiarGetsThreeOfFour(t *testing.T) {
	p, ws := dispatch.LeastConnections(), having(1, 0, 1, 1)
	got := map[int]int{}
	for range 4000 {
		i := p.Pick(dispatch.Conn{}, ws)
		got[ws[i].Slot]++
		if ws[i].Slot != 2 {
			ws[i].Open++
		}
	}
	if got[2] != 3000 || got[1] < 333 || got[3] < 333 || got[4] < 333 {
		t.Errorf("shares %v", got)
	}
}
