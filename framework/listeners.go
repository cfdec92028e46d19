package framework

import (
	"iter"
	"net"
)

// Listeners are what a Serve function accepts on. In a worker their
// connections come from the master; Addr is the address that the master bound.
type Listeners struct {
	names  []string
	byName map[string]net.Listener
}

func newListeners() Listeners { return Listeners{byName: map[string]net.Listener{}} }

func (l *Listeners) add(name string, ln net.Listener) {
	l.names = append(l.names, name)
	l.byName[name] = ln
}

// Get returns the listener of that name, nil if there is none. The listener
// that there is without Listen is called "default".
func (l Listeners) Get(name string) net.Listener { return l.byName[name] }

// All yields the listeners by name, in the order of the Listen options.
func (l Listeners) All() iter.Seq2[string, net.Listener] {
	return func(yield func(string, net.Listener) bool) {
		for _, name := range l.names {
			if !yield(name, l.byName[name]) {
				return
			}
		}
	}
}
