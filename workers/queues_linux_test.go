package workers

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/listener"
)

func TestSocketsOfListenersAddUp(t *testing.T) {
	for _, c := range []struct {
		counts       []int
		listeners, n int
		want         []int // nil: they do not
	}{
		{nil, 2, 2, []int{0, 1}},
		{nil, 2, 3, nil},
		{nil, 2, 1, nil},
		{[]int{1, 3}, 2, 4, []int{0, 1, 1, 1}},
		{[]int{3, 1}, 2, 4, []int{0, 0, 0, 1}},
		{[]int{3, 1}, 2, 5, nil},
		{[]int{3, 1}, 2, 3, nil},
		{[]int{4}, 2, 4, nil},
		{[]int{2, 2, 0}, 3, 4, nil},
		{[]int{5, -1}, 2, 4, nil},
		{[]int{1 << 40, 1}, 2, 4, nil},
	} {
		of, ok := spans(c.counts, c.listeners, c.n)
		if ok != (c.want != nil) || ok && !slices.Equal(of, c.want) {
			t.Errorf("%v of %d listeners, %d sockets: %v, %v, want %v", c.counts, c.listeners, c.n, of, ok, c.want)
		}
	}
}

// beside binds a socket at the address of g's listener, and puts it in the record.
func (g *legacy) beside() *listener.Listener {
	g.t.Helper()
	group, err := listener.NewGroup(g.socket)
	if err != nil {
		g.t.Fatal(err)
	}
	defer group.Leave()
	l, err := group.Add()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	g.record.Listeners[0].Beside = append(g.record.Listeners[0].Beside, cookieOf(l.File()))
	return l
}

func TestOrphanBringsTheSocketsOfAllSlots(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs root: " + listener.ErrNoGroup.Error())
	}
	g := newLegacy(t)
	second := g.beside()
	third := g.beside()
	o := g.open()
	p := g.presence()
	files := func(ls ...*listener.Listener) []int {
		fds := g.files()
		for _, l := range ls {
			fds = append(fds, listening(t, l))
		}
		return fds
	}
	// Sockets that it was not given, or not in this place.
	for name, message := range map[string]struct {
		sockets []int
		files   []int
	}{
		"in another order":   {[]int{3}, files(third, second)},
		"one twice":          {[]int{3}, files(second, second)},
		"more than it had":   {[]int{4}, files(second, third, third)},
		"not in the message": {nil, files(second, third)},
	} {
		p.Sockets = message.sockets
		if _, err := g.present(msgPresent, encode(p), message.files); err == nil {
			t.Fatalf("%s: it was believed", name)
		} else {
			t.Log(name, err)
		}
	}
	p.Sockets = []int{3}
	if _, err := g.present(msgPresent, encode(p), files(second, third)); err != nil {
		t.Fatal(err)
	}
	if fs := o.beside("tcp|a"); fs != nil {
		t.Error("sockets beside a listener that nobody has taken")
	}
	if f := o.Listener("tcp|a"); f == nil {
		t.Fatal("the listener is missing")
	} else {
		f.Close()
	}
	o.DropListeners() // of those that are not taken
	fs := o.beside("tcp|a")
	if len(fs) != 2 || cookieOf(fs[0]) != cookieOf(second.File()) || cookieOf(fs[1]) != cookieOf(third.File()) {
		t.Errorf("%d sockets beside it, want 2", len(fs))
	}
	closeFiles(fs)
}

// One that was trusted before there were more slots has fewer sockets.
func TestOrphanMayHaveFewerSocketsThanTheRecord(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs root: " + listener.ErrNoGroup.Error())
	}
	g := newLegacy(t)
	g.beside()
	o := g.open()
	if _, err := g.present(msgPresent, encode(g.presence()), g.files()); err != nil {
		t.Fatal(err)
	}
	o.Have("tcp|a") // from elsewhere
	if fs := o.beside("tcp|a"); len(fs) != 0 {
		t.Errorf("%d sockets", len(fs))
	}
}
