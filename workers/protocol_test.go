//go:build unix

package workers

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzConnEntries(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(appendConn(nil, 7, 1), 1)
	f.Add(appendConn(appendConn(nil, 1<<63, 65535), 0, 0), 2)
	f.Add(appendConn(nil, 7, 1)[:9], 1)
	f.Add(appendConn(nil, 7, 1), 2)
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		n, err := connCount(b, files)
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Fatalf("error %v is no protocol error", err)
			}
			return
		}
		if n < 1 || n != files {
			t.Fatalf("%d connections with %d files", n, files)
		}
		var again []byte
		for i := range n {
			id, listener := connEntry(b, i)
			again = appendConn(again, id, listener)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %x", b, again)
		}
	})
}

func FuzzIDs(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendID(nil, 1))
	f.Add(appendID(appendID(nil, 1<<63), 0))
	f.Add([]byte("seven b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := idCount(b)
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Fatalf("error %v is no protocol error", err)
			}
			return
		}
		var again []byte
		for i := range n {
			again = appendID(again, idAt(b, i))
		}
		if n < 1 || !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %x", b, again)
		}
	})
}

func FuzzIntro(f *testing.F) {
	f.Add(encode(Intro{Protocol: protocol, Nonce: "n", PID: 2, Settings: []byte(`{"a":1}`)}))
	f.Add([]byte(`{"protocol":{"newest":99999999999999999999}}`))
	f.Add([]byte(`{"settings":`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decode[Intro](b)
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Fatalf("error %v is no protocol error", err)
			}
			return
		}
		again, err := decode[Intro](encode(in))
		if err != nil || again.Nonce != in.Nonce || again.Protocol != in.Protocol || again.PID != in.PID {
			t.Fatalf("%+v was sent and %+v received, %v", in, again, err)
		}
	})
}

func FuzzDrainOrder(f *testing.F) {
	f.Add(encode(DrainOrder{Timeout: 1, Grace: 2, Reason: "r"}))
	f.Add([]byte(`{"timeout":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decode[DrainOrder](b); err != nil && !errors.Is(err, errProtocol) {
			t.Fatalf("error %v is no protocol error", err)
		}
	})
}

func FuzzMarker(f *testing.F) {
	f.Add(string(encode(marker{Nonce: "n", Generation: 1, Slot: 1, Argv0: "app"})))
	f.Add(`{"nonce":"","generation":1,"slot":1}`)
	f.Add("yes")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMarker(s)
		if err == nil && (m.Nonce == "" || m.Generation < 1 || m.Slot < 1) {
			t.Fatalf("%q was taken as %+v", s, m)
		}
	})
}
