package movable

import "testing"

func TestSelfTest(t *testing.T) {
	for range 20 {
		if err := SelfTest(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkSelfTest(b *testing.B) {
	for b.Loop() {
		if err := SelfTest(); err != nil {
			b.Fatal(err)
		}
	}
}
