package systemd

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// taskEnv makes the test binary tell what it was passed.
const taskEnv = "SYSTEMD_TEST_TASK"

type told struct {
	Names []string
	Leaky bool // the files are inheritable
	Env   []string
}

func tellFiles() {
	if id := os.Getenv("LISTEN_PIDFDID"); id == "own" {
		var st unix.Stat_t
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err == nil {
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Setenv("LISTEN_PIDFDID", fmt.Sprint(st.Ino))
	}
	var r told
	for _, f := range Files() {
		r.Names = append(r.Names, f.Name())
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		r.Leaky = r.Leaky || err != nil || flags&unix.FD_CLOEXEC == 0
	}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "LISTEN_") {
			r.Env = append(r.Env, kv)
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
}

func TestFilesArePassedToThisProcessOnly(t *testing.T) {
	pidfds := pidfdsDiffer(t)
	for _, c := range []struct {
		name string
		pid  string // of a shell that becomes the process
		env  []string
		want []string
	}{
		{"by name", "$$", []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=main:admin.socket"}, []string{"main", "admin.socket"}},
		{"without names", "$$", []string{"LISTEN_FDS=2"}, []string{"LISTEN_FD_3", "LISTEN_FD_4"}},
		{"with fewer names", "$$", []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=main"}, []string{"main", "LISTEN_FD_4"}},
		{"another process", "1", []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=main:admin"}, nil},
		{"no process", "", []string{"LISTEN_FDS=2"}, nil},
		{"no number", "$$", []string{"LISTEN_FDS=two"}, nil},
		{"none", "$$", nil, nil},
		{"by pidfd", "$$", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=main", "LISTEN_PIDFDID=own"}, []string{"main"}},
		{"another of that pid", "$$", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=main", "LISTEN_PIDFDID=1"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "another of that pid" && !pidfds {
				t.Skip("pidfds have no inode numbers of their own before Linux 6.9")
			}
			cmd := exec.Command("/bin/sh", "-c", "LISTEN_PID="+c.pid+` exec "$0"`, os.Args[0])
			cmd.Env = append([]string{taskEnv + "=1"}, c.env...)
			cmd.ExtraFiles = []*os.File{os.Stdin, os.Stdin}
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var got told
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v: %q", err, out)
			}
			if !slices.Equal(got.Names, c.want) || got.Leaky || len(got.Env) > 0 {
				t.Errorf("got %+v, want %q, closed by exec and nothing in the environment", got, c.want)
			}
		})
	}
}

func pidfdsDiffer(t *testing.T) bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && int64(fs.Type) == pidfs
}

func TestTheWatchdogIsInherited(t *testing.T) {
	own := fmt.Sprint(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      string
		kept      bool // for the next master
	}{
		{"3000000", own, "3s", true},
		{"3000000", "", "3s", true},
		{"3000000", "1", "0s", false},
		{"0", own, "0s", false},
		{"-5", own, "0s", false},
		{"soon", own, "0s", false},
		{"", "", "0s", false},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		d := WatchdogTime()
		_, pid := os.LookupEnv("WATCHDOG_PID")
		_, usec := os.LookupEnv("WATCHDOG_USEC")
		if d.String() != c.want || pid || usec != c.kept {
			t.Errorf("%q of %q: %v, pid left: %v, time left: %v; want %s, false, %v", c.usec, c.pid, d, pid, usec, c.want, c.kept)
		}
	}
}
