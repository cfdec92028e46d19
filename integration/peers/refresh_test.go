//go:build linux

package peers

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRefreshReplacesWhatIsBetweenTheMarkers(t *testing.T) {
	begin, end := Markers("it")
	path := filepath.Join(t.TempDir(), "README.md")
	for _, c := range []struct{ old, want string }{
		{"a\n" + begin + "\nold\n" + end + "\nz\n", "a\n" + begin + "\nnew\n" + end + "\nz\n"},
		{begin + end, begin + "\nnew\n" + end},
		{"a\n" + begin + "\nz\n", ""},
		{end + begin, ""},
		{"", ""},
	} {
		if err := os.WriteFile(path, []byte(c.old), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Refresh(path, "it", "new\n")
		if (err == nil) != (c.want != "") {
			t.Errorf("%q: %v", c.old, err)
		}
		if c.want == "" {
			c.want = c.old
		}
		if have, _ := os.ReadFile(path); string(have) != c.want {
			t.Errorf("%q: have %q, want %q", c.old, have, c.want)
		}
	}
}
