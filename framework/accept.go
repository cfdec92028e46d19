package framework

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/baton-go/baton/listener"
)

// Accept says who takes connections from the kernel: listener.AcceptByMaster,
// AcceptByWorkers, AcceptByKernel or AcceptOnlyByKernel. It belongs to a
// generation, and is in force from the moment that the generation serves. A
// listener that names a mode of its own, by listener.Accept, keeps that, whatever
// the environment says.
//
// With AcceptByMaster a policy picks the worker of each connection, see Dispatch.
// With the others none is asked: workers that accept for themselves take as many
// as they can, and spend nothing on the way through the master. In all of them no
// reload, upgrade, stop or death of a worker loses a connection that has not been
// accepted: the master holds the sockets.
//
// AcceptByKernel is exact round-robin. It takes Linux 5.12 or later, TCP, and a
// master that is root or has CAP_BPF and CAP_NET_ADMIN; for a listener where that is
// not so the mode is AcceptByMaster, and the log says why. With AcceptOnlyByKernel
// it is a configuration error, and for a release a reason to be refused.
//
// With User only if Orphans is set, too, since its workers hold no listeners
// otherwise: that is a configuration error.
//
// Default listener.AcceptByMaster. Variable BATON_ACCEPT: master, workers, kernel,
// or kernel! to be refused rather than to fall back to master. SingleProcess
// ignores it, with a warning.
func Accept(mode listener.AcceptMode) Option { return acceptVar.code(mode) }

var acceptVar = variable[listener.AcceptMode]{
	option: "Accept", name: "BATON_ACCEPT", expected: listener.AcceptModes,
	at:     func(o *options) *listener.AcceptMode { return &o.Accept },
	parse:  func(s string) (listener.AcceptMode, bool) { return listener.AcceptMode(s), true },
	check:  func(m listener.AcceptMode) (listener.AcceptMode, bool) { return m, m.Valid() },
	format: func(m listener.AcceptMode) string { return string(m) },
}

// takeAccepts takes the listeners' own modes out of their specs: another mode is
// no other listener, and takes no other master.
func (o *options) takeAccepts() {
	for i := range o.Listeners {
		s := &o.Listeners[i]
		if s.Accept == "" {
			continue
		}
		if o.Accepts == nil {
			o.Accepts = map[string]listener.AcceptMode{}
		}
		o.Accepts[s.Name] = s.Accept
		s.Accept = ""
	}
}

// accepted returns the modes other than the default, by listener key.
func (s settings) accepted() map[string]listener.AcceptMode {
	modes := map[string]listener.AcceptMode{}
	for i, key := range listener.Keys(s.Listeners) {
		mode, own := s.Accepts[s.Listeners[i].Name]
		if !own {
			mode = s.Accept
		}
		if mode != listener.AcceptByMaster && mode != "" {
			modes[key] = mode
		}
	}
	return modes
}

// checkAccept looks for modes in which the workers could not have the sockets.
func (o *options) checkAccept() {
	for _, problem := range o.unacceptable(o.settings, o.source("Accept", string(o.Accept))) {
		o.problem("%s", problem)
	}
}

// incapable says which accept modes that s insists on this machine does not have
// for this process.
func (o *options) incapable(s settings, accept string) (problems []string) {
	lacks := sync.OnceValue(listener.GroupSupported) // it asks the kernel
	for i, key := range listener.Keys(s.Listeners) {
		l := s.Listeners[i]
		if s.accepted()[key] != listener.AcceptOnlyByKernel {
			continue
		}
		said := accept
		if _, own := s.Accepts[l.Name]; own {
			said = fmt.Sprintf("accept mode %s of listener %q", listener.AcceptOnlyByKernel, l.Name)
		}
		if l.Network == "unix" {
			problems = append(problems, fmt.Sprintf("%s: expected listener %q on tcp, a unix socket has one queue", said, l.Name))
		} else if err := lacks(); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", said, err))
		}
	}
	return slices.Compact(problems)
}

// unacceptable says which accept modes that s asks for, one of them in these
// words, are none for the workers of this master.
func (o *options) unacceptable(s settings, accept string) (problems []string) {
	if o.account == nil || o.Orphans {
		return nil
	}
	refuse := func(said string) {
		problems = append(problems, fmt.Sprintf("%s with %s: expected master, for workers of another user hold no listeners without Orphans(true)",
			said, o.source("User", strconv.Quote(o.User))))
	}
	if s.Accept != listener.AcceptByMaster && s.Accept != "" {
		refuse(accept)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Accepts)) {
		if mode := s.Accepts[name]; mode != listener.AcceptByMaster {
			refuse(fmt.Sprintf("accept mode %s of listener %q", mode, name))
		}
	}
	return problems
}
