//go:build unix

package framework

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/baton-go/baton/workers"
)

// What one release says to another, beside what package workers does.

func offered(t testing.TB, p workers.Versions) []byte {
	t.Helper()
	b, err := json.Marshal(offer{Protocol: p, Generation: 3, Upgrades: 2, RuntimeDir: "/run/app"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOffersOfOtherVersions(t *testing.T) {
	for _, tt := range []struct {
		data string
		want string
	}{
		{string(offered(t, workers.Protocol())), ""},
		{string(offered(t, workers.Versions{Newest: workers.ProtocolVersion + 1, Oldest: workers.ProtocolVersion})), ""},
		{`{"protocol":{"newest":9,"oldest":1,"x":0},"generation":1,"x":{},"listeners":[{"x":0}]}`, ""},
		{`{"protocol":{"newest":9,"oldest":8},"generation":1}`, "the old master speaks protocol 8 to 9, this release 1 to 2: no version is common to both"},
		{`{"protocol":{"newest":9,"oldest":8},"generation":0}`, "protocol 8 to 9"},
		{`{"generation":1}`, "protocol 0, this release 1 to 2"},
		{`{"protocol":{"newest":1,"oldest":1}}`, "generation 0"},
		{`{`, "offer of the predecessor"},
	} {
		_, err := parseOffer([]byte(tt.data))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.data, err)
		}
	}
}

func FuzzOffer(f *testing.F) {
	f.Add(offered(f, workers.Protocol()))
	f.Add([]byte(`{"protocol":{"newest":9,"oldest":8},"generation":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOffer(b)
		if err == nil && (o.Generation < 1 || !workers.Protocol().Meets(o.Protocol)) {
			t.Fatalf("%q was taken as %+v", b, o)
		}
	})
}

// A worker of an earlier release says nothing of options that it does not have,
// one of a later release more than is known.
func TestSettingsOfOtherReleases(t *testing.T) {
	o := defaultOptions(environment{})
	m := &master{o: o, cpus: 3}
	said, err := json.Marshal(o.settings)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(said, &fields); err != nil {
		t.Fatal(err)
	}
	fields["Workers"], fields["Mood"] = json.RawMessage("2"), json.RawMessage(`"good"`)
	delete(fields, "KillTimeout")
	delete(fields, "MaxDraining")
	said, err = json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	asked, _, err := m.workerOptions(workers.Intro{Settings: said})
	if err != nil || asked.Workers != 2 || asked.KillTimeout != 5*time.Second || asked.MaxDraining != 8 || asked.OrphanTimeout != 0 {
		t.Errorf("%+v, %v", asked, err)
	}
}
