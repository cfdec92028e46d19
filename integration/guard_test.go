//go:build linux

package integration

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// guardEnv makes this binary a guard, of the directory that it names.
const guardEnv = "BATON_TEST_GUARD"

// startGuard starts a process that outlives this one and cleans up after it,
// for a test binary that runs into its timeout or is killed cleans up nothing.
// It learns of our end by the end of a pipe.
func startGuard() (release func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	guard := exec.Command("/proc/self/exe")
	guard.Env = append(os.Environ(), guardEnv+"="+rootDir)
	guard.Stdin = r
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is not for it
	if err := guard.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return func() {
		w.Close()
		_ = guard.Wait()
	}, nil
}

// runGuard waits for the end of the tests, then ends every process that runs a
// binary in dir, and removes dir.
func runGuard(dir string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	for range 100 { // a master may start another worker meanwhile
		left := findProcesses(func(p process) bool { return strings.HasPrefix(p.exe(), dir+"/") })
		if len(left) == 0 {
			break
		}
		for _, p := range left {
			_ = p.kill()
		}
	}
	_ = os.RemoveAll(dir)
}
