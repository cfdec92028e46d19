//go:build linux

package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openDir(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRecordIsReadBack(t *testing.T) {
	d := openDir(t)
	if b, err := d.ReadRecord(); b != nil || err != nil {
		t.Errorf("no record: %q, %v", b, err)
	}
	for _, want := range []string{"first", "second"} {
		if err := d.WriteRecord([]byte(want)); err != nil {
			t.Fatal(err)
		}
		if b, err := d.ReadRecord(); string(b) != want || err != nil {
			t.Errorf("read %q, %v; want %q", b, err, want)
		}
	}
	if info, err := os.Stat(d.record()); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// One that was being written when its master was killed.
	if err := os.WriteFile(filepath.Join(d.Path(), "."+recordName+"123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // there may be none
		if err := errors.Join(d.Tidy(), d.RemoveRecord()); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(d.Path()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRecordOfSomebodyElseIsRefused(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"writable by others": func(path string) error {
			err := os.WriteFile(path, []byte("x"), 0o600)
			if err == nil {
				err = os.Chmod(path, 0o622)
			}
			return err
		},
		"a link":      func(path string) error { return os.Symlink("/etc/hostname", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"endless":     func(path string) error { return os.Symlink("/dev/zero", path) },
		"too long": func(path string) error {
			f, err := os.Create(path)
			if err == nil {
				err = f.Truncate(maxRecord + 1)
				f.Close()
			}
			return err
		},
	} {
		d := openDir(t)
		if err := put(d.record()); err != nil {
			t.Fatal(err)
		}
		if b, err := d.ReadRecord(); err == nil || !strings.Contains(err.Error(), "record") {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestAdoptSocketIsPrivateAndReplacesAStaleOne(t *testing.T) {
	d := openDir(t)
	var last net.Listener
	for range 2 { // the second time over the file of the first
		l, err := d.ListenAdopt(0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		last = l
		info, err := os.Lstat(d.AdoptSocket())
		if err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	_ = last.(*net.UnixListener).SetDeadline(time.Now().Add(10 * time.Second))
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.AdoptSocket(), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := last.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	for range 2 {
		if err := d.RemoveAdopt(); err != nil {
			t.Error(err)
		}
	}
}

func TestLeftCountsThoseThatLive(t *testing.T) {
	d := openDir(t)
	if n := Left(d.Path()); n != 0 {
		t.Errorf("%d of no record", n)
	}
	own := startOf(os.Getpid())
	record := fmt.Sprintf(`{"generations":[{"workers":[{"pid":%d,"start":%d},{"pid":%d,"start":1},{"pid":0},{}]},{}]}`, os.Getpid(), own, os.Getpid())
	if err := d.WriteRecord([]byte(record)); err != nil {
		t.Fatal(err)
	}
	if n := Left(d.Path()); n != 1 {
		t.Errorf("%d, want 1", n)
	}
	if err := d.WriteRecord([]byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if n := Left(d.Path()); n != 0 {
		t.Errorf("%d of garbage", n)
	}
}
