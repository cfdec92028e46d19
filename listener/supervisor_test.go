//go:build unix

package listener

import (
	"os"
	"runtime"
	"testing"
)

// What a supervisor goes on with keeps its file, its queue and its ears.
func TestASupervisorsSocketIsLeftAsItWas(t *testing.T) {
	for _, s := range sockets(t) {
		t.Run(s.Network, func(t *testing.T) {
			theirs := bind(t, s)
			l, err := FromSupervisor(s, inherited(t, theirs.File()))
			if err != nil {
				t.Fatal(err)
			}
			if !l.Shared() || theirs.Shared() {
				t.Errorf("shared: %v, want true; the supervisor's own: %v", l.Shared(), theirs.Shared())
			}
			if addr, err := AddrOf(l.File()); err != nil || addr.String() != theirs.Addr().String() {
				t.Errorf("it is at %v (%v), want %v", addr, err, theirs.Addr())
			}
			dial(t, l)
			awaitQueued(t, l)
			if err := l.Shun(); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			dial(t, theirs) // fails if it was shunned, or its file removed
			for accepted := 0; accepted < 2; {
				fds := make([]int, 4)
				n, err := theirs.Accept(fds, &testGate{room: 4})
				if err != nil {
					t.Fatal(err)
				}
				closeAll(t, fds[:n])
				accepted += n
			}
		})
	}
}

func TestAWelcomeUndoesAShun(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can shun")
	}
	l := bind(t, NewSpec("tcp", "127.0.0.1:0"))
	l.Welcome() // nobody has
	if err := l.Shun(); err != nil {
		t.Fatal(err)
	}
	l.Welcome()
	dial(t, l)
}

func TestOnlySocketsHaveAnAddress(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if addr, err := AddrOf(f); err == nil {
		t.Errorf("%v", addr)
	}
}
