// Package leaktest fails a test binary that leaves goroutines or descriptors.
package leaktest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// closeTime is for what other goroutines are about to close.
const closeTime = 2 * time.Second

// Main runs the tests and returns the exit status, for TestMain: 1 as well when
// all passed and a goroutine or a descriptor is left.
func Main(m *testing.M) int {
	before := OpenFiles()
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	for fd, target := range Leaked(before) {
		fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
		code = 1
	}
	return code
}

// Leaked returns what is open and was not before.
func Leaked(before map[string]string) map[string]string {
	for deadline := time.Now().Add(closeTime); ; time.Sleep(time.Millisecond) {
		now := OpenFiles()
		for fd := range before {
			delete(now, fd)
		}
		if len(now) == 0 || time.Now().After(deadline) {
			return now
		}
	}
}

// OpenFiles returns the open descriptors with what they are; it is empty where
// there is no /proc. The runtime's poller is left out: it comes with its first
// use and stays.
func OpenFiles() map[string]string {
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
