//go:build linux

package integration

import (
	"bytes"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Load tools that others have written see what ours see: nothing.

// foreignReloads is how many deploys a foreign tool goes through.
const foreignReloads = 30

// tool returns the path of a program, or skips the test.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install %s", name, pkg)
	}
	return path
}

// counted is the number in the group of the pattern, which must be there.
func counted(t *testing.T, pattern, in string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(in)
	if m == nil {
		t.Fatalf("no %q in\n%s", pattern, in)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWrkSeesNoErrorThroughReloads(t *testing.T) {
	wrk := tool(t, "wrk", "wrk")
	s := newService(t, appConfig{Workers: 2})
	var out bytes.Buffer
	cmd := exec.Command(wrk, "--threads", "1", "--connections", "32", "--duration", "10m", "http://"+s.addr+"/")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for range foreignReloads {
		if v := s.reload(); !v.OK {
			t.Errorf("reload: %+v", v)
			break
		}
		s.waitStatus("only the new generation", oneGeneration)
	}
	// On an interrupt it stops and reports.
	_ = cmd.Process.Signal(syscall.SIGINT)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("wrk: %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		t.Error("wrk does not stop")
	}
	t.Logf("\n%s", &out)
	if n := counted(t, `(\d+) requests in`, out.String()); n < foreignReloads {
		t.Errorf("%d requests only", n)
	}
	// It prints these lines only when there is something to say.
	for _, line := range []string{"Socket errors", "Non-2xx"} {
		if strings.Contains(out.String(), line) {
			t.Errorf("wrk reports %s", line)
		}
	}
}

// Without -r ab gives up at the first error of a socket.
func TestAbSeesNoErrorThroughReloads(t *testing.T) {
	ab := tool(t, "ab", "apache2-utils")
	s := newService(t, appConfig{Workers: 2})
	reloads := 0
	for round := 1; reloads < foreignReloads; round++ {
		var out bytes.Buffer
		cmd := exec.Command(ab, "-k", "-q", "-c", "16", "-n", "20000", "http://"+s.addr+"/")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		timeout := time.After(2 * time.Minute)
		for running := true; running; {
			select {
			case err := <-done:
				running = false
				if err != nil {
					t.Fatalf("round %d of ab: %v\n%s", round, err, &out)
				}
				continue
			case <-timeout:
				_ = cmd.Process.Kill()
				t.Errorf("ab does not end")
				continue
			default:
			}
			if v := s.reload(); !v.OK {
				t.Errorf("reload: %+v", v)
			}
			s.waitStatus("only the new generation", oneGeneration)
			reloads++
		}
		complete := counted(t, `Complete requests: +(\d+)`, out.String())
		kept := counted(t, `Keep-Alive requests: +(\d+)`, out.String())
		failed := counted(t, `Failed requests: +(\d+)`, out.String())
		t.Logf("round %d: %d complete, %d failed, %d kept alive; %d reloads so far", round, complete, failed, kept, reloads)
		if complete != 20000 || failed != 0 || kept != complete || strings.Contains(out.String(), "Non-2xx") {
			t.Fatalf("ab:\n%s", &out)
		}
	}
}
