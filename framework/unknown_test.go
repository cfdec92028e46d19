package framework

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSlipsInVariablesAreNoticed(t *testing.T) {
	for name, want := range map[string]string{
		"BATON_WORKER":         "BATON_WORKERS",
		"BATON_WOKRERS":        "BATON_WORKERS",
		"BATON_PIDFILE":        "BATON_PID_FILE",
		"BATON_ENVFILE":        "BATON_ENV_FILE",
		"BATON_DRAIN_TIME_OUT": "BATON_DRAIN_TIMEOUT",
		"BATON_DRAINTIMOUT":    "BATON_DRAIN_TIMEOUT",
		"BATON_GIVEUP_AFTER":   "BATON_GIVE_UP_AFTER",
		"BATON_STOP_TIMEOUTS":  "BATON_STOP_TIMEOUT",
		"BATON_ORPHANS_TIMEUT": "BATON_ORPHAN_TIMEOUT",

		// Ours.
		"BATON_WORKERS": "", "BATON_ENV_FILE": "", "BATON_USER": "",
		// May be the application's.
		"BATON_COLOUR": "", "BATON_DATABASE_URL": "", "BATON_TIMEOUT": "", "BATON_TEST_LONG": "", "BATON_": "", "BATON": "", "WORKERS": "",
	} {
		o := &options{env: environment{name: "1"}}
		var lines []string
		if want != "" {
			lines = []string{name + " is no variable of Baton's and has no effect: is " + want + " meant?"}
		}
		o.inherited = o.env
		if diff := cmp.Diff(lines, o.unknownVariables()); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	o := &options{env: environment{"BATON_WORKER": ""}} // as good as unset
	if got := o.unknownVariables(); got != nil {
		t.Errorf("%q", got)
	}
}
