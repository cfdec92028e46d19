//go:build !baton_ipc_stream

package ipc_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

const recvAllocs = 0

// sendRaw sends one packet past the codec.
func sendRaw(t *testing.T, f *os.File, p string, files ...int) {
	t.Helper()
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	if err := unix.Sendmsg(int(f.Fd()), []byte(p), oob, nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
}

func TestBadPacketHarmsOnlyItself(t *testing.T) {
	const header = "\x01\x02\x00\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		name, packet string
		files        int
		want         string
	}{
		{"one byte", "x", 0, "too short"},
		{"one byte with files", "x", 3, "too short"},
		{"version", "\x02" + header[1:], 1, "version 2"},
		{"payload cut", "\x01\x02\x00\x00\x05\x00\x00\x00abc", 2, "announces 5 bytes of payload, 3 came"},
		{"oversize", "\x01\x02\x00\x00\x01\x80\x00\x00" + strings.Repeat("x", ipc.MaxPayload+1), 2, "longer than"},
		{"much oversize", strings.Repeat("x", 3*ipc.MaxPayload), 0, "longer than"},
		{"files without announcement", header, 2, "announces 0 descriptors, 2 came"},
		{"fewer files than announced", "\x01\x02\x03\x00\x00\x00\x00\x00", 2, "announces 3 descriptors, 2 came"},
		{"no files as announced", "\x01\x02\x01\x00\x00\x00\x00\x00", 0, "announces 1 descriptors, 0 came"},
		{"more files than announced", "\x01\x02\x01\x00\x00\x00\x00\x00", ipc.MaxFiles, "announces 1 descriptors, 253 came"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, f, err := pairFile(t)
			if err != nil {
				t.Fatal(err)
			}
			files := tempFiles(t, tt.files)
			sendRaw(t, f, tt.packet, files...)
			sendRaw(t, f, header)
			before := len(openFiles())
			if frame, err := c.Recv(); !errors.Is(err, ipc.ErrProtocol) {
				t.Fatalf("Recv = %v, %v; want ErrProtocol", frame, err)
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if after := len(openFiles()); after != before {
				t.Errorf("%d descriptors open, %d before the bad packet", after, before)
			}
			wantFrame(t, c, 2, nil)
		})
	}
}

func TestEmptyPacketIsTheEnd(t *testing.T) {
	c, f, err := pairFile(t)
	if err != nil {
		t.Fatal(err)
	}
	sendRaw(t, f, "")
	before := len(openFiles())
	if _, err := c.Recv(); err != io.EOF {
		t.Fatalf("Recv = %v, want io.EOF", err)
	}
	if after := len(openFiles()); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// TestForeignControlMessagesAreIgnored has the kernel add credentials, which it
// puts before the descriptors.
func TestForeignControlMessagesAreIgnored(t *testing.T) {
	c, f, err := pairFile(t)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.SetsockoptInt(int(d.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	files := tempFiles(t, ipc.MaxFiles)
	sendRaw(t, f, "\x01\x02\xfd\x00\x00\x00\x00\x00", files...)
	frame, err := c.Recv()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(frame.Files)
	if len(frame.Files) != ipc.MaxFiles || frame.Missing != 0 {
		t.Errorf("received %d files, %d missing; want all 253", len(frame.Files), frame.Missing)
	}
}
