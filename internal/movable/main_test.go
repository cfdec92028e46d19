package movable

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		// The poller's own descriptors come with the first socket.
		if after := descriptors(); after > before+4 {
			fmt.Fprintf(os.Stderr, "%d descriptors open, %d at the start\n", after, before)
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() int {
	if runtime.GOOS != "linux" {
		return 0
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(open)
}
