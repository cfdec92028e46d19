//go:build unix

package ipc_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/baton-go/baton/workers/ipc"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name    string
		typ     uint8
		files   int
		payload []byte
		want    []byte // nil: not compared byte by byte
	}{
		{"empty", 0, 0, nil, []byte{1, 0, 0, 0, 0, 0, 0, 0}},
		{"payload", 7, 0, []byte("hi"), []byte{1, 7, 0, 0, 2, 0, 0, 0, 'h', 'i'}},
		{"most files", 255, ipc.MaxFiles, nil, []byte{1, 255, 253, 0, 0, 0, 0, 0}},
		{"longest", 9, 3, bytes.Repeat([]byte{0xa5}, ipc.MaxPayload), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prefix := []byte("kept")
			b := ipc.AppendFrame(prefix, tt.typ, tt.files, tt.payload)
			if !bytes.HasPrefix(b, prefix) {
				t.Fatalf("AppendFrame lost what was there: % x", b[:8])
			}
			b = b[len(prefix):]
			if tt.want != nil && !bytes.Equal(b, tt.want) {
				t.Errorf("AppendFrame = % x, want % x", b, tt.want)
			}
			typ, files, payload, err := ipc.ParseFrame(b)
			if err != nil {
				t.Fatal(err)
			}
			if typ != tt.typ || files != tt.files || !bytes.Equal(payload, tt.payload) {
				t.Errorf("ParseFrame = %d, %d, %d bytes; want %d, %d, %d bytes",
					typ, files, len(payload), tt.typ, tt.files, len(tt.payload))
			}
		})
	}
}

func TestParseFrameRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
	}{
		{"nothing", "", "0 bytes are too short"},
		{"short header", "\x01\x02\x00\x00\x00\x00\x00", "7 bytes are too short"},
		{"version", "\x02\x02\x00\x00\x00\x00\x00\x00", "version 2, want 1"},
		{"text", "GET / HTTP/1.1\r\n", "version 71"},
		{"too many files", "\x01\x02\xfe\x00\x00\x00\x00\x00", "254 descriptors"},
		{"too long", "\x01\x02\x00\x00\x01\x80\x00\x00", "payload of 32769 bytes"},
		{"length near 4 GiB", "\x01\x02\x00\x00\xff\xff\xff\xff", "payload of 4294967295 bytes"},
		{"less than announced", "\x01\x02\x00\x00\x03\x00\x00\x00ab", "announces 3 bytes of payload, 2 came"},
		{"more than announced", "\x01\x02\x00\x00\x01\x00\x00\x00ab", "announces 1 bytes of payload, 2 came"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := ipc.ParseFrame([]byte(tt.in))
			if !errors.Is(err, ipc.ErrProtocol) {
				t.Fatalf("error %v, want ErrProtocol", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func TestAppendFramePanicsRatherThanTruncate(t *testing.T) {
	for name, f := range map[string]func(){
		"files":    func() { ipc.AppendFrame(nil, 1, ipc.MaxFiles+1, nil) },
		"negative": func() { ipc.AppendFrame(nil, 1, -1, nil) },
		"payload":  func() { ipc.AppendFrame(nil, 1, 0, make([]byte, ipc.MaxPayload+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				err, _ := recover().(error)
				if !errors.Is(err, ipc.ErrProtocol) {
					t.Errorf("panicked with %v, want ErrProtocol", err)
				}
			}()
			f()
		})
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x02\x00"))
	f.Add([]byte("\x02\x02\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x02\xff\xff\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x02\x00\x00\xff\xff\xff\xff"))
	f.Add(ipc.AppendFrame(nil, 3, 0, nil))
	f.Add(ipc.AppendFrame(nil, 4, ipc.MaxFiles, []byte("payload")))
	f.Fuzz(func(t *testing.T, b []byte) {
		typ, files, payload, err := ipc.ParseFrame(b)
		if err != nil {
			if !errors.Is(err, ipc.ErrProtocol) {
				t.Fatalf("error %v is not ErrProtocol", err)
			}
			return
		}
		// The format has one encoding for each message.
		if again := ipc.AppendFrame(nil, typ, files, payload); !bytes.Equal(again, b) {
			t.Fatalf("% x parsed and encoded again is % x", b, again)
		}
	})
}

func BenchmarkAppendFrame(b *testing.B) {
	payload := make([]byte, 256)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = ipc.AppendFrame(buf[:0], 1, 16, payload)
	}
}
