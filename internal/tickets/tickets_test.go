package tickets

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baton-go/baton/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestEveryWorkerHasAKeyBeforeItSeals(t *testing.T) {
	r := New()
	for range 3 * ringSize {
		before := r.Keys()
		r.Rotate()
		if sealing := r.Keys()[0]; sealing == before[0] || !slices.Contains(before, sealing) {
			t.Fatalf("after a rotation it seals with a key that is old, or that workers did not have")
		}
	}
}

func TestKeyOpensForAsLongAsItsTicketsLive(t *testing.T) {
	const lifetime = 7 * 24 * time.Hour // of a ticket, as crypto/tls has it
	synctest.Test(t, func(t *testing.T) {
		r := New()
		rotate := func() {
			time.Sleep(r.Due())
			r.Rotate()
		}
		for range 2 * ringSize {
			key := r.Keys()[0]
			rotate()
			last := time.Now() // that it can have sealed
			for slices.Contains(r.Keys(), key) {
				rotate()
			}
			if kept := time.Since(last); kept < lifetime || kept > lifetime+Rotation {
				t.Fatalf("kept for %v after its last ticket", kept)
			}
			if n := len(r.Keys()); n != ringSize {
				t.Fatalf("%d keys", n)
			}
		}
	})
}

func TestKeysAreAllDifferent(t *testing.T) {
	r := New()
	for range ringSize {
		r.Rotate()
	}
	seen := map[[keySize]byte]bool{{}: true} // zero is no key
	for _, k := range r.Keys() {
		if seen[k] {
			t.Error("a key is there twice, or zero")
		}
		seen[k] = true
	}
}

func TestDueIsOneRotationAfterTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		if d := r.Due(); d != Rotation {
			t.Errorf("new: due in %v", d)
		}
		time.Sleep(Rotation / 3)
		if d := r.Due(); d != Rotation-Rotation/3 {
			t.Errorf("after a third: due in %v", d)
		}
		time.Sleep(100 * Rotation) // suspended, say
		if d := r.Due(); d != 0 {
			t.Errorf("late: due in %v", d)
		}
		r.Rotate()
		if d := r.Due(); d != Rotation {
			t.Errorf("rotated: due in %v", d)
		}
	})
}

// A new master goes on where the old one was: many upgrades a day must not put
// the rotation off for ever.
func TestRingIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		r.Rotate()
		time.Sleep(Rotation / 4)
		next, err := FromRecord(r.Record())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(next.Keys(), r.Keys()) || next.Due() != r.Due() {
			t.Errorf("%d keys, due in %v; want %d and %v", len(next.Keys()), next.Due(), len(r.Keys()), r.Due())
		}
		r.Rotate()
		if slices.Equal(next.Keys(), r.Keys()) {
			t.Error("they share their keys' memory")
		}
	})
}

func TestRecordIsChecked(t *testing.T) {
	keys := func(n int) []byte { return bytes.Repeat([]byte{1}, n*keySize) }
	for _, tt := range []struct {
		name string
		rec  Record
		want string // "": it is taken
		keys int
		due  time.Duration
	}{
		{"two", Record{keys(2), 0}, "", 2, Rotation},
		{"none", Record{nil, 0}, "0 bytes", 0, 0},
		{"one", Record{keys(1), 0}, "1, expected 2", 0, 0},
		{"half a key", Record{keys(3)[1:], 0}, "95 bytes", 0, 0},
		{"of a longer ring", Record{keys(1000), Rotation / 2}, "", ringSize, Rotation / 2},
		{"from the future", Record{keys(2), -time.Hour}, "", 2, Rotation},
		{"very late", Record{keys(2), 1 << 62}, "", 2, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := FromRecord(tt.rec)
				if tt.want != "" {
					if err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("error %v, want %q", err, tt.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if n, due := len(r.Keys()), r.Due(); n != tt.keys || due != tt.due {
					t.Errorf("%d keys, due in %v", n, due)
				}
			})
		})
	}
}

func TestKeysTravel(t *testing.T) {
	k := New().Keys()
	back, err := ParseKeys(k.Bytes())
	if err != nil || !slices.Equal(back, k) {
		t.Errorf("%d of %d keys come back: %v", len(back), len(k), err)
	}
	if _, err := ParseKeys([]byte("a secret")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

func TestListenersHaveKeysOfTheirOwn(t *testing.T) {
	k := New().Keys()
	main, admin := k.For("main"), k.For("admin")
	if !slices.Equal(main, k.For("main")) {
		t.Error("the keys of one listener differ from time to time")
	}
	for i := range k {
		if main[i] == k[i] || main[i] == admin[i] {
			t.Error("listeners share a key")
		}
	}
}
