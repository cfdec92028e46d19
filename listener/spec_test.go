package listener

import (
	"encoding/json"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestValidateNamesListenerValueAndExpectation(t *testing.T) {
	api := Name("api")
	long := "/" + strings.Repeat("x", pathLimit())
	const nosuch = "no-such-user-a7c1"
	for _, tc := range []struct {
		name string
		spec Spec
		want string // "" when valid; else every line of the error, in order
	}{
		{"tcp", NewSpec("tcp", "127.0.0.1:8080"), ""},
		{"any host", NewSpec("tcp", ":0"), ""},
		{"host name", NewSpec("tcp", "localhost:65535"), ""},
		{"service", NewSpec("tcp", "127.0.0.1:http"), ""},
		{"ipv4", NewSpec("tcp4", "0.0.0.0:80"), ""},
		{"ipv6", NewSpec("tcp6", "[::1]:80"), ""},
		{"path", NewSpec("unix", "/run/app.sock"), ""},
		{"longest path", NewSpec("unix", long[1:]), ""},
		{"mode and owner", NewSpec("unix", "/run/app.sock", Mode(0o660), Owner("0:0")), ""},
		{"numeric owner", NewSpec("unix", "/run/app.sock", Owner("12345")), ""},

		{"no port", NewSpec("tcp", "foo", api), `listener "api": address "foo": expected host:port`},
		{"empty port", NewSpec("tcp", "foo:", api), `listener "api": address "foo:": expected host:port`},
		{"bare ipv6", NewSpec("tcp", "::1", api), `listener "api": address "::1": expected host:port`},
		{"empty", NewSpec("tcp", "", api), `listener "api": address "": expected host:port`},
		{"port too high", NewSpec("tcp", ":65536", api), `listener "api": address ":65536": expected a port from 0 to 65535 or the name of a service`},
		{"negative port", NewSpec("tcp", ":-1", api), `listener "api": address ":-1": expected a port from 0 to 65535 or the name of a service`},
		{"signed port", NewSpec("tcp", ":+1", api), `listener "api": address ":+1": expected a port from 0 to 65535 or the name of a service`},
		{"unknown service", NewSpec("tcp", ":nosuchservice", api), `listener "api": address ":nosuchservice": expected a port from 0 to 65535 or the name of a service`},
		{"ipv6 on tcp4", NewSpec("tcp4", "[::1]:80", api), `listener "api": address "[::1]:80": expected an IPv4 address`},
		{"ipv4 on tcp6", NewSpec("tcp6", "127.0.0.1:80", api), `listener "api": address "127.0.0.1:80": expected an IPv6 address`},
		{"network", NewSpec("udp", ":80", api), `listener "api": network "udp": expected tcp, tcp4, tcp6 or unix`},
		{"no network", NewSpec("", ":80", api), `listener "api": network "": expected tcp, tcp4, tcp6 or unix`},
		{"no path", NewSpec("unix", "", api), `listener "api": address "": expected the path of a socket`},
		{"zero byte", NewSpec("unix", "/a\x00b", api), `listener "api": address "/a\x00b": expected a path without zero bytes`},
		{"no abstract name", NewSpec("unix", "@", api), `listener "api": address "@": expected a name after @`},
		{"mode on tcp", NewSpec("tcp", ":80", api, Mode(0o600)), `listener "api": mode 0600: expected only with the path of a unix socket`},
		{"mode on abstract", NewSpec("unix", "@", api, Mode(0o600)), "listener \"api\": address \"@\": expected a name after @\n" +
			`listener "api": mode 0600: expected only with the path of a unix socket`},
		{"mode bits", NewSpec("unix", "/a", api, Mode(0o600|fs.ModeSetuid)), `listener "api": mode 040000600: expected permission bits only`},
		{"owner on tcp", NewSpec("tcp", ":80", api, Owner("root")), `listener "api": owner "root": expected only with the path of a unix socket`},
		{"no group", NewSpec("unix", "/a", api, Owner("0:")), `listener "api": owner "0:": expected user or user:group`},
		{"no user", NewSpec("unix", "/a", api, Owner(":0")), `listener "api": owner ":0": expected user or user:group`},
		{"unknown user", NewSpec("unix", "/a", api, Owner(nosuch)), `listener "api": owner "` + nosuch + `": expected the name or number of an existing user`},
		{"unknown group", NewSpec("unix", "/a", api, Owner("0:"+nosuch)), `listener "api": owner "0:` + nosuch + `": expected the name or number of an existing group`},
		{"minus one", NewSpec("unix", "/a", api, Owner("-1")), `listener "api": owner "-1": expected the name or number of an existing user`},
		{"name", NewSpec("tcp", ":80", Name("a b")), `listener "a b": name "a b": ` + nameExpected},
		{"no name", NewSpec("tcp", ":80", Name("")), `listener "": name "": ` + nameExpected},
		{"not ascii", NewSpec("tcp", ":80", Name("é")), `listener "é": name "é": ` + nameExpected},
		{"all at once", NewSpec("tcp", "foo", Name("a b"), Mode(1), Owner("root")), `listener "a b": name "a b": ` + nameExpected + "\n" +
			"listener \"a b\": address \"foo\": expected host:port\n" +
			"listener \"a b\": mode 01: expected only with the path of a unix socket\n" +
			`listener "a b": owner "root": expected only with the path of a unix socket`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && tc.spec.Owner != "" {
				return // owners are refused there before they are looked at
			}
			got := ""
			if err := tc.spec.Validate(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
	if err := NewSpec("unix", long, api).Validate(); err == nil || !strings.Contains(err.Error(), "expected at most") {
		t.Errorf("path of %d bytes: got %v", len(long), err)
	}
	if err := NewSpec("tcp", ":80", Name(strings.Repeat("n", 256))).Validate(); err == nil {
		t.Error("a name of 256 bytes is valid")
	}
	err := NewSpec("unix", "@app", api).Validate()
	if linux := runtime.GOOS == "linux"; (err == nil) != linux {
		t.Errorf("abstract address on %s: got %v", runtime.GOOS, err)
	}
}

func TestValidateAllFindsDuplicates(t *testing.T) {
	err := ValidateAll([]Spec{
		NewSpec("tcp", ":0", Name("a")),
		NewSpec("tcp", ":0", Name("b")),
		NewSpec("tcp", ":80", Name("c")),
		NewSpec("tcp6", ":80", Name("d")),
	})
	if err != nil {
		t.Errorf("distinct listeners: got %v", err)
	}
	err = ValidateAll([]Spec{
		NewSpec("tcp", ":80", Name("a")),
		NewSpec("tcp", ":81", Name("a")),
		NewSpec("tcp", ":80", Name("b")),
		NewSpec("tcp", "foo", Name("c")),
	})
	want := "listener \"a\": name \"a\": expected a name of its own, another listener has it\n" +
		"listener \"b\": address \":80\": expected an address of its own, listener \"a\" has it\n" +
		"listener \"c\": address \"foo\": expected host:port"
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestKeysAreUnique(t *testing.T) {
	got := Keys([]Spec{
		NewSpec("tcp", ":0", Name("a")),
		NewSpec("unix", "/a"),
		NewSpec("tcp", ":0", Name("b")),
		NewSpec("tcp", ":0", Name("c")),
	})
	want := []string{"tcp|:0", "unix|/a", "tcp|:0|2", "tcp|:0|3"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSpecSurvivesJSON(t *testing.T) {
	want := NewSpec("unix", "/a", Name("api"), Mode(0o640), Owner("root:root"))
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Spec
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%s: got %+v, %v, want %+v", b, got, err, want)
	}
	if b, _ := json.Marshal(NewSpec("tcp", ":0")); string(b) != `{"name":"tcp::0","network":"tcp","address":":0"}` {
		t.Errorf("got %s", b)
	}
}
