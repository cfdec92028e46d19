package framework

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baton-go/baton/workers/dispatch"
)

// mine is a policy of the application's own.
type mine string

func (m mine) Name() string                            { return string(m) }
func (mine) Pick(dispatch.Conn, []dispatch.Worker) int { return 0 }

func TestBadPoliciesAreNamed(t *testing.T) {
	for _, tt := range []struct {
		policy dispatch.Policy
		want   string
	}{
		{nil, "Dispatch(nil): expected a policy, such as dispatch.LeastConnections()"},
		{mine(""), "Dispatch(): expected a policy with a name"},
		{mine("hash"), "Dispatch(hash): expected a name of its own, package dispatch has a policy of this one"},
		{mine("weighted:3,1"), "Dispatch(weighted:3,1): expected a name of its own, package dispatch has a policy of this one"},
		{mine("hash:net"), "Dispatch(hash:net): expected hash without parameters"},
		{dispatch.Weighted(1, -1), "Dispatch(weighted:1,-1): expected weighted:W,W,... with weights from 0 to 1000"},
	} {
		// Said of the code, whatever wins over it.
		for _, env := range []environment{nil, {"BATON_DISPATCH": "hash"}} {
			_, err := resolve([]Option{Dispatch(tt.policy)}, env)
			if diff := cmp.Diff([]string{tt.want}, problemsOf(t, err)); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestPoliciesAreFoundByName(t *testing.T) {
	for _, tt := range []struct {
		code          dispatch.Policy
		env, dispatch string
		others        string // that can be asked for by a release
	}{
		{nil, "", "round-robin", " round-robin weighted weighted:0,1000 least-connections hash"},
		{nil, "weighted:3,1", "weighted:3,1", "hash"},
		{mine("mine"), "", "mine", "mine hash"},
		{mine("mine"), "mine", "mine", "mine"},
		{mine("mine"), "hash", "hash", "mine"},
		{dispatch.LeastConnections(), "", "least-connections", "hash"},
	} {
		env, opts := environment{}, []Option{}
		if tt.env != "" {
			env["BATON_DISPATCH"] = tt.env
		}
		if tt.code != nil {
			opts = append(opts, Dispatch(tt.code))
		}
		o := mustResolve(t, env, opts...)
		if o.Dispatch != tt.dispatch {
			t.Errorf("code %v, environment %q: %q, want %q", tt.code, tt.env, o.Dispatch, tt.dispatch)
		}
		for _, name := range append(strings.Split(tt.others, " "), o.Dispatch) {
			p, err := o.policyNamed(name)
			if err != nil || p.Name() != name && name != "" {
				t.Errorf("code %v: %q is %v, %v", tt.code, name, p, err)
			}
		}
		if _, err := o.policyNamed("another"); err == nil {
			t.Errorf("code %v: there is a policy that nobody has given", tt.code)
		}
	}
	// The very policy, and not one like it: its state goes on.
	p := dispatch.Hash()
	if got, _ := mustResolve(t, nil, Dispatch(p)).policyNamed("hash"); got != p {
		t.Error("another instance than the one in the code")
	}
	_, err := resolve([]Option{Dispatch(mine("mine"))}, environment{"BATON_DISPATCH": "yours"})
	if diff := cmp.Diff([]string{`BATON_DISPATCH="yours": expected round-robin, weighted, least-connections or hash, or mine`}, problemsOf(t, err)); diff != "" {
		t.Error(diff)
	}
}
