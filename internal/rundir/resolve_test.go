//go:build unix

package rundir

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestResolveTakesTheFirstPlace(t *testing.T) {
	uid := os.Geteuid()
	other := uid + 1234
	xdg := private(t)
	keys := []string{"tcp|:80", "unix|/run/x"}
	name, err := dirName("/srv/app", keys)
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("t", 90)
	tests := []struct {
		name     string
		explicit string
		env      map[string]string
		uid      int
		want     string
	}{
		{"option", "/srv/run/", map[string]string{"RUNTIME_DIRECTORY": "/run/a"}, uid, "/srv/run"},
		{"relative option", "run", nil, uid, filepath.Join(wd, "run")},
		{"systemd", "", map[string]string{"RUNTIME_DIRECTORY": "/run/a", "XDG_RUNTIME_DIR": xdg}, uid, "/run/a"},
		{"systemd, several", "", map[string]string{"RUNTIME_DIRECTORY": "/run/a:/run/b"}, uid, "/run/a"},
		{"xdg", "", map[string]string{"XDG_RUNTIME_DIR": xdg, "TMPDIR": "/t"}, uid, filepath.Join(xdg, "baton", name)},
		{"xdg of another user", "", map[string]string{"XDG_RUNTIME_DIR": xdg, "TMPDIR": "/t"}, other,
			filepath.Join("/t", familyOf(other), name)},
		{"xdg that is not there", "", map[string]string{"XDG_RUNTIME_DIR": filepath.Join(xdg, "no")}, other,
			filepath.Join("/tmp", familyOf(other), name)},
		{"relative xdg", "", map[string]string{"XDG_RUNTIME_DIR": "."}, other, filepath.Join("/tmp", familyOf(other), name)},
		{"root", "", map[string]string{"TMPDIR": "/t"}, 0, filepath.Join(systemRun(), "baton", name)},
		{"tmpdir", "", map[string]string{"TMPDIR": "/t"}, 7, "/t/baton-7/" + name},
		{"tmp", "", nil, 7, "/tmp/baton-7/" + name},
		{"relative tmpdir", "", map[string]string{"TMPDIR": "t"}, 7, "/tmp/baton-7/" + name},
		{"tmpdir too long", "", map[string]string{"TMPDIR": long}, 7, "/tmp/baton-7/" + name},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have, err := Resolve(tt.explicit, "/srv/app", keys, env(tt.env), tt.uid)
			if err != nil || have != tt.want {
				t.Errorf("have %q, %v\nwant %q", have, err, tt.want)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, exe string
		env       map[string]string
		want      string
	}{
		{"relative systemd directory", "app", map[string]string{"RUNTIME_DIRECTORY": "run"}, `$RUNTIME_DIRECTORY is "run", expected an absolute path`},
		{"no executable", "", nil, "expected a file name"},
		{"root as executable", "/", nil, "expected a file name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := Resolve("", tt.exe, nil, env(tt.env), 7); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("have %q, %v, want %q", p, err, tt.want)
			}
		})
	}
}

func TestNameTellsServicesApart(t *testing.T) {
	of := func(exe string, keys ...string) string {
		n, err := dirName(exe, keys)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	base := of("/srv/app", "tcp|:80", "tcp|:81")
	if have := of("/opt/app", "tcp|:81", "tcp|:80"); have != base {
		t.Errorf("another folder or order: %q is not %q", have, base)
	}
	for _, n := range []string{of("/srv/app", "tcp|:80"), of("/srv/app2", "tcp|:80", "tcp|:81"), of("/srv/app", "tcp|:80tcp|:81"), of("/srv/app")} {
		if n == base {
			t.Errorf("two services share %q", n)
		}
	}
	if n := of("/srv/a b\nc:é"); !strings.HasPrefix(n, "a_b_c__-") {
		t.Errorf("have %q", n)
	}
	if n := of("/srv/" + strings.Repeat("n", 300)); len(n) != maxName+9 {
		t.Errorf("have %d bytes: %q", len(n), n)
	}
}

func TestCandidatesAreTheTrustedOnesWithASocket(t *testing.T) {
	xdg, tmp := private(t), private(t)
	uid := os.Geteuid()
	e := env(map[string]string{"XDG_RUNTIME_DIR": xdg, "TMPDIR": tmp})

	socket := func(dir string) string {
		l, err := net.Listen("unix", SocketPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return dir
	}
	mkdir(t, 0o700, xdg, "baton")
	want := []string{socket(mkdir(t, 0o700, xdg, "baton", "a-1")), socket(mkdir(t, 0o755, xdg, "baton", "b-2"))}
	socket(mkdir(t, 0o770, xdg, "baton", "group-writable"))
	mkdir(t, 0o700, xdg, "baton", "empty")
	if err := os.WriteFile(SocketPath(mkdir(t, 0o700, xdg, "baton", "file")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(want[0], filepath.Join(xdg, "baton", "link")); err != nil {
		t.Fatal(err)
	}
	have := Candidates(e, uid)
	// Services that really run in this machine's default places are none of ours.
	have = slices.DeleteFunc(have, func(p string) bool { return !strings.HasPrefix(p, xdg) && !strings.HasPrefix(p, tmp) })
	if !slices.Equal(have, want) {
		t.Errorf("have %q\nwant %q", have, want)
	}

	// For another user, the same directories are somebody else's. (Root's are
	// trusted by all, so as root they must be given away first.)
	const other = 4321
	mkdir(t, 0o700, tmp, familyOf(other))
	theirs := socket(mkdir(t, 0o700, tmp, familyOf(other), "c-3"))
	if uid == 0 {
		for _, p := range []string{filepath.Dir(theirs), theirs} {
			if err := os.Chown(p, 1234, 1234); err != nil {
				t.Fatal(err)
			}
		}
	}
	if have := Candidates(e, other); slices.Contains(have, theirs) {
		t.Errorf("a directory of another user is trusted: %q", have)
	}
}

func TestFromEnv(t *testing.T) {
	for in, want := range map[string]string{"": "", "/run/a": "/run/a", "/run/a:/run/b": "/run/a"} {
		if have := FromEnv(env(map[string]string{"RUNTIME_DIRECTORY": in})); have != want {
			t.Errorf("%q: have %q, want %q", in, have, want)
		}
	}
}
