package framework

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/baton-go/baton/workers/dispatch"
)

// Dispatch chooses who gets a connection: dispatch.RoundRobin, Weighted,
// LeastConnections, Hash, or a policy of the application's own, whose name must
// be another than theirs. It belongs to a generation, and is in force from the
// moment that the generation serves.
//
// The master asks p, and has it from its own binary. So where a release names a
// policy that the running master does not have, the HUP becomes an upgrade; and
// where only the code of a policy has changed, it takes an upgrade to have it.
// Package dispatch says what a policy must do.
//
// Default dispatch.RoundRobin(), strict. Variable BATON_DISPATCH: round-robin,
// weighted, weighted:3,1 (the weights of slots 1 and 2, the others have 1),
// least-connections, hash, or the name of p. Ignored by SingleProcess.
func Dispatch(p dispatch.Policy) Option {
	return func(o *options) {
		if p == nil {
			o.problem("Dispatch(nil): expected a policy, such as dispatch.LeastConnections()")
			return
		}
		name := p.Name()
		said := fmt.Sprintf("Dispatch(%s)", name)
		if err := checkPolicy(p, name); err != nil {
			o.problem("%s: %v", said, err)
			return
		}
		o.policy, o.Dispatch, o.said["Dispatch"] = p, name, said
	}
}

// checkPolicy looks for what would make others take p for another policy.
func checkPolicy(p dispatch.Policy, name string) error {
	builtin, err := dispatch.Parse(name)
	switch {
	case errors.Is(err, dispatch.ErrUnknown):
		if name == "" {
			return errors.New("expected a policy with a name")
		}
		return nil
	case err == nil && reflect.TypeOf(p) != reflect.TypeOf(builtin):
		return errors.New("expected a name of its own, package dispatch has a policy of this one")
	}
	return err
}

// policyNamed returns a policy that this process has.
func (o *options) policyNamed(name string) (dispatch.Policy, error) {
	if o.policy != nil && name == o.policy.Name() {
		return o.policy, nil
	}
	if name == "" { // of a release that knew of no others
		return dispatch.RoundRobin(), nil
	}
	p, err := dispatch.Parse(name)
	if errors.Is(err, dispatch.ErrUnknown) && o.policy != nil {
		err = fmt.Errorf("%w, or %s", err, o.policy.Name())
	}
	return p, err
}

const dispatchName = "BATON_DISPATCH"

// dispatchVar is the variable of Dispatch. Which names are good depends on the
// policy that is given there.
type dispatchVar struct{}

func (dispatchVar) variable() string { return dispatchName }

func (dispatchVar) apply(o *options, env environment) {
	v := variable[string]{
		option: "Dispatch", name: dispatchName,
		at:     func(o *options) *string { return &o.Dispatch },
		parse:  func(s string) (string, bool) { return s, true },
		check:  func(s string) (string, bool) { return s, true },
		format: func(s string) string { return s },
	}
	if name, ok := env.lookup(v.name); ok {
		if _, err := o.policyNamed(name); err != nil {
			v.expected = strings.TrimPrefix(err.Error(), "expected ")
			v.check = func(string) (string, bool) { return "", false }
		}
	}
	v.apply(o, env)
}
