//go:build unix

package workers

import (
	"slices"
	"testing"

	"github.com/baton-go/baton/workers/dispatch"
)

func TestFirstConnectionStirsAPoolThatRests(t *testing.T) {
	d, fars := newTestDispatcher(t, dispatch.RoundRobin(), 1)
	stirred := func() bool {
		select {
		case <-d.quiet.stirred:
			return true
		default:
			return false
		}
	}
	rests := func(want bool, when string) {
		t.Helper()
		if d.rests() != want {
			t.Errorf("%s: it rests: %v", when, !want)
		}
	}
	rests(true, "nobody has ever come")
	accept(t, d, 1)
	if !stirred() {
		t.Error("the first connection does not stir it")
	}
	rests(false, "one has just come")
	rests(false, "it is not acknowledged")
	accept(t, d, 1)
	if stirred() {
		t.Error("stirred, and it did not rest")
	}
	for len(fars[0].got) < 2 {
		fars[0].recv()
	}
	if err := d.ack(fars[0].w, fars[0].settle(slices.Clone(fars[0].got)...)); err != nil {
		t.Fatal(err)
	}
	rests(false, "another has come since")
	rests(true, "all are acknowledged")
	accept(t, d, 1)
	if !stirred() {
		t.Error("the next connection does not stir it")
	}
}
