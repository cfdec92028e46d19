package framework

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		for fd, target := range openFiles() {
			if _, had := before[fd]; !had {
				fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// openFiles is empty where there is no /proc. The runtime's poller is left
// out: it comes with its first use and stays.
func openFiles() map[string]string {
	files := make(map[string]string)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			files[e.Name()] = target
		}
	}
	return files
}
