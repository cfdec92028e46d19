//go:build unix

package ipc_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

// childEnv names the role of a test binary that executed itself.
const childEnv = "BATON_IPC_TEST_CHILD"

// children are the roles; each returns an exit status.
var children = map[string]func() int{}

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		os.Exit(children[role]())
	}
	// The runtime's poller opens descriptors of its own with the first file.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := openFiles()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if after := openFiles(); len(after) > len(before) {
			fmt.Fprintf(os.Stderr, "descriptors leaked\nbefore: %q\nafter:  %q\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

// openFiles lists the descriptors of this process, with their targets where
// the OS tells.
func openFiles() []string {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for i, n := range names {
		target, _ := os.Readlink(filepath.Join("/dev/fd", n))
		names[i] = n + " " + target
	}
	slices.Sort(names)
	return names
}
