//go:build linux

package peers

import (
	"bufio"
	"os/exec"
	"testing"
)

func TestCPUTimeHasThatOfChildrenThatHaveEnded(t *testing.T) {
	// What is measured is a child's, of a shell that then waits.
	cmd := exec.CommandContext(t.Context(), "sh", "-c",
		`(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exit 0); echo done; read x`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Error(err)
	}
	have := CPUTime(cmd.Process.Pid)
	stdin.Close()
	_ = cmd.Wait()
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if have < used/2 || have > used+4*Tick {
		t.Errorf("have %v, and %v by the end", have, used)
	}
	if gone := CPUTime(cmd.Process.Pid); gone != 0 {
		t.Errorf("have %v of a process that is gone", gone)
	}
}
