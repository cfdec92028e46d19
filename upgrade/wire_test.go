//go:build unix

package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/leaktest"
)

const patience = 20 * time.Second

// ends returns both ends of a pair.
func ends(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = unixConn(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	_ = a.SetReadDeadline(time.Now().Add(patience))
	_ = b.SetReadDeadline(time.Now().Add(patience))
	return a, b
}

// numbered returns n files, each with its number in it.
func numbered(t *testing.T, n int) []*os.File {
	t.Helper()
	var files []*os.File
	for i := range n {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, i)
		files = append(files, f)
	}
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	return files
}

func checkNumbered(t *testing.T, files []*os.File, n int) {
	t.Helper()
	if len(files) != n {
		t.Fatalf("%d files, want %d", len(files), n)
	}
	for i, f := range files {
		b := make([]byte, 16)
		k, _ := f.ReadAt(b, 0)
		if string(b[:k]) != fmt.Sprint(i) {
			t.Fatalf("file %d holds %q", i, b[:k])
		}
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("file %d is inheritable", i)
			}
		})
	}
}

func TestMessagesArriveWithTheirFiles(t *testing.T) {
	a, b := ends(t)
	big := bytes.Repeat([]byte("x"), 3<<20) // far beyond the socket's buffer
	messages := []message{
		{typ: msgOffer, payload: []byte("offer")},
		{typ: msgEntry, payload: []byte("o\x00d"), files: numbered(t, 1)},
		{typ: msgFiles, files: numbered(t, maxFiles)},
		{typ: msgEnd},
		{typ: msgEntry, payload: big, files: numbered(t, 2)},
		{typ: msgGo},
	}
	sent := make(chan error, 1)
	go func() {
		for _, m := range messages {
			if err := send(a, time.Now().Add(patience), m); err != nil {
				sent <- err
				return
			}
		}
		a.Close()
		sent <- nil
	}()
	for i, want := range messages {
		m, err := recv(b)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if m.typ != want.typ || !bytes.Equal(m.payload, want.payload) {
			t.Errorf("message %d: type %d, %d bytes", i, m.typ, len(m.payload))
		}
		checkNumbered(t, m.files, len(want.files))
		m.close()
	}
	if _, err := recv(b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestSendEnds(t *testing.T) {
	a, _ := ends(t)
	if err := send(a, time.Now().Add(20*time.Millisecond), message{typ: msgEntry, payload: make([]byte, 8<<20)}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("to nobody who reads: %v", err)
	}
	if err := send(a, time.Now().Add(patience), message{typ: msgFiles, files: make([]*os.File, maxFiles+1)}); err == nil {
		t.Error("254 files were sent")
	}
	f := numbered(t, 1)
	f[0].Close()
	if err := send(a, time.Now().Add(patience), message{typ: msgFiles, files: f}); err == nil {
		t.Error("a closed file was sent")
	}
}

func TestMalformedMessages(t *testing.T) {
	for _, tt := range []struct {
		name, bytes string
		files       int
		want        string
	}{
		{"version", "\x01\x02\x00\x00\x00\x00\x00\x00", 1, "malformed message: of version 2, expected 1"},
		{"too long", "\x01\x01\x00\x00\x01\x00\x00\x04", 0, "malformed"},
		{"files announced and not sent", "\x04\x01\x02\x00\x00\x00\x00\x00", 1, "files are missing"},
		{"files sent and not announced", "\x04\x01\x00\x00\x00\x00\x00\x00", 2, "files are missing"},
		{"half a header", "\x04\x01\x00", 1, "EOF"},
		{"half a payload", "\x04\x01\x00\x00\x05\x00\x00\x00ab", 0, "EOF"},
		{"nothing", "", 0, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := ends(t)
			files := numbered(t, tt.files)
			before := len(leaktest.OpenFiles())
			var oob []byte
			if tt.files > 0 {
				var fds []int
				for _, f := range files {
					fds = append(fds, int(f.Fd()))
				}
				oob = unix.UnixRights(fds...)
			}
			if tt.bytes != "" {
				if _, _, err := a.WriteMsgUnix([]byte(tt.bytes), oob, nil); err != nil {
					t.Fatal(err)
				}
			}
			_ = a.CloseWrite()
			m, err := recv(b)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v, want %q", m, err, tt.want)
			}
			if n := len(leaktest.OpenFiles()); n != before {
				t.Errorf("%d descriptors more", n-before)
			}
		})
	}
}

func FuzzRecv(f *testing.F) {
	f.Add([]byte("\x01\x01\x00\x00\x02\x00\x00\x00ab\x06\x01\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x01\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		near, file, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		far, err := unixConn(file)
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		if _, err := near.Write(b); err != nil {
			t.Fatal(err)
		}
		near.Close()
		total := 0
		for {
			m, err := recv(far)
			if err != nil {
				break
			}
			total += headerSize + len(m.payload)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of messages in %d bytes", total, len(b))
		}
	})
}

// predecessorOn is a Predecessor without tableflip.
func predecessorOn(t *testing.T, c *net.UnixConn) *Predecessor {
	t.Helper()
	p := &Predecessor{c: c, said: make(chan message, 1), lost: make(chan struct{})}
	done := make(chan struct{})
	go func() { p.listen(); close(done) }()
	t.Cleanup(func() { c.Close(); <-done })
	return p
}

func TestEntriesOfAnySizeAreHandedOver(t *testing.T) {
	a, b := ends(t)
	want := map[string]int{"none": 0, "one": 1, "full": maxFiles, "more": maxFiles + 1, "many": 2*maxFiles + 7}
	var entries []Entry
	for _, owner := range []string{"none", "one", "full", "more", "many"} {
		entries = append(entries, Entry{Owner: owner, Data: []byte("data\x00of " + owner), Files: numbered(t, want[owner])})
	}
	p := predecessorOn(t, b)
	given := make(chan error, 1)
	go func() {
		if m, err := recv(a); err != nil || m.typ != msgPrepared || string(m.payload) != fmt.Sprint(os.Getpid()) {
			given <- fmt.Errorf("message %d %q, %v", m.typ, m.payload, err)
			return
		}
		given <- (&handing{c: a, h: Handover{Freeze: func() ([]Entry, error) { return entries, nil }}}).give()
	}()
	got, err := p.Prepared()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(got)
	if err := <-given; err != nil {
		t.Fatal(err)
	}
	if len(got) != len(entries) {
		t.Fatalf("%d entries", len(got))
	}
	for i, e := range got {
		if e.Owner != entries[i].Owner || string(e.Data) != "data\x00of "+e.Owner {
			t.Errorf("entry %d: %q %q", i, e.Owner, e.Data)
		}
		checkNumbered(t, e.Files, want[e.Owner])
	}
	for _, e := range entries { // give closes what Freeze duplicated
		for _, f := range e.Files {
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				t.Fatalf("a file of %s was left open", e.Owner)
			}
		}
	}
}

func TestPreparedRefusesNonsense(t *testing.T) {
	file := func() []*os.File { return numbered(t, 1) }
	for name, messages := range map[string][]message{
		"files of no entry":      {{typ: msgFiles, files: file()}},
		"entry without an owner": {{typ: msgEntry, payload: []byte("no zero"), files: file()}},
		"another message":        {{typ: msgEntry, payload: []byte("o\x00"), files: file()}, {typ: msgGo}},
		"its end":                {{typ: msgEntry, payload: []byte("o\x00"), files: file()}},
		"cancelled":              {{typ: msgEntry, payload: []byte("o\x00"), files: file()}, {typ: msgCancel}},
	} {
		t.Run(name, func(t *testing.T) {
			before := leaktest.OpenFiles()
			a, b := ends(t)
			p := predecessorOn(t, b)
			for _, m := range messages {
				if err := send(a, time.Now().Add(patience), m); err != nil {
					t.Fatal(err)
				}
			}
			_ = a.CloseWrite()
			entries, err := p.Prepared()
			if err == nil {
				t.Fatalf("%+v", entries)
			}
			if got := errors.Is(err, ErrCancelled); got != (name == "cancelled") {
				t.Errorf("error %v", err)
			}
			<-p.Lost()
			a.Close()
			b.Close()
			for fd, target := range leaktest.Leaked(before) {
				t.Errorf("leaked %s: %s", fd, target)
			}
		})
	}
}

func TestOfferIsTheFirstMessage(t *testing.T) {
	a, b := ends(t)
	p := predecessorOn(t, b)
	for _, m := range []message{{typ: msgOffer, payload: []byte("o")}, {typ: msgGo}} {
		if err := send(a, time.Now().Add(patience), m); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := p.Offer(); err != nil || string(o) != "o" {
		t.Errorf("%q, %v", o, err)
	}
	if o, err := p.Offer(); !errors.Is(err, errWire) {
		t.Errorf("second: %q, %v", o, err)
	}
}

func TestRefusalIsCutToSize(t *testing.T) {
	a, b := ends(t)
	p := predecessorOn(t, b)
	p.Refuse(strings.Repeat("x", 1<<20))
	m, err := recv(a)
	if err != nil || m.typ != msgFailed || len(m.payload) > 17<<10 {
		t.Errorf("type %d, %d bytes, %v", m.typ, len(m.payload), err)
	}
}

func TestErrors(t *testing.T) {
	err := error(&RefusedError{Reason: "why", Err: io.EOF})
	if err.Error() != "upgrade refused: why" || !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
