package systemd

import (
	"io"
	"os"
	"testing"
	"time"
)

func TestPipeEndsWithWhatIsStored(t *testing.T) {
	for name, stores := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			path := sockets(t)["path"]
			m := listen(t, path)
			stored := make(chan *os.File, 1)
			go func() {
				_, files := m.hear()
				if !stores {
					files[0].Close()
				}
				stored <- files[0]
				_, barrier := m.hear()
				barrier[0].Close()
			}()
			r, err := NewNotifier(path).StorePipe("x", 5*time.Second)
			if err != nil || (r != nil) != stores {
				t.Fatalf("StorePipe: %v, %v", r, err)
			}
			if !stores {
				return
			}
			defer r.Close()
			// A later start is given what is stored.
			w := <-stored
			again, err := OtherEnd(w)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			for _, f := range []*os.File{r, again} {
				if ended, err := hungUp(f); ended || err != nil {
					t.Errorf("ended %v, %v", ended, err)
				}
			}
			w.Close()
			for _, f := range []*os.File{r, again} {
				if b, err := io.ReadAll(f); len(b) > 0 || err != nil {
					t.Errorf("read %q, %v; want the end", b, err)
				}
			}
		})
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if r, err := OtherEnd(null); err == nil {
		r.Close()
		t.Error("what is no pipe has no other end")
	}
}
