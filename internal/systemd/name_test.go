package systemd

import (
	"strings"
	"testing"
)

func TestNamesInTheStore(t *testing.T) {
	for key, want := range map[string]string{
		"tcp|127.0.0.1:0|2": "baton-tcp|127.0.0.1%3A0|2",
		"unix|/run/a b%.s":  "baton-unix|/run/a%20b%25.s",
		"unix|/run/ö":       "baton-unix|/run/%C3%B6",
		"unix|@app\n":       "baton-unix|@app%0A",
	} {
		if got, ok := StoreName(key); !ok || got != want {
			t.Errorf("StoreName(%q) = %q, %v, want %q", key, got, ok, want)
		}
	}
	if _, ok := StoreName("unix|/" + strings.Repeat("ö", 80)); ok {
		t.Error("systemd takes no name of more than 255 bytes")
	}
	for _, name := range []string{"", "main", "app.socket", "LISTEN_FD_3", "baton-%", "baton-%3", "baton-%zz", "baton-%3a", "baton-%41", "baton-a:b", "baton-a b"} {
		if key, ok := StoredKey(name); ok {
			t.Errorf("StoredKey(%q) = %q, but we call nothing so", name, key)
		}
	}
}

func FuzzStoredKey(f *testing.F) {
	f.Add("baton-tcp|127.0.0.1%3A0|2")
	f.Add("baton-%")
	f.Add("app.socket")
	f.Fuzz(func(t *testing.T, name string) {
		key, ok := StoredKey(name)
		if !ok {
			return
		}
		if again, ok := StoreName(key); !ok || again != name {
			t.Fatalf("%q is %q, but that is called %q, %v", name, key, again, ok)
		}
	})
}

func FuzzStoreName(f *testing.F) {
	f.Add("tcp|:8080")
	f.Fuzz(func(t *testing.T, key string) {
		name, ok := StoreName(key)
		if !ok {
			return
		}
		for _, c := range []byte(name) {
			if c < ' ' || c >= 0x7f || c == ':' {
				t.Fatalf("systemd does not take %q", name)
			}
		}
		if again, ok := StoredKey(name); !ok || again != key {
			t.Fatalf("%q is called %q, but that is %q, %v", key, name, again, ok)
		}
	})
}
