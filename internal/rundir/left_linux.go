package rundir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Left counts the workers that a dead master has left in the runtime directory
// dir and that are alive: for somebody who wonders why nobody answers. It is no
// proof of anything.
func Left(dir string) (n int) {
	data, err := (&Dir{path: filepath.Clean(dir)}).ReadRecord()
	if err != nil || data == nil {
		return 0
	}
	// A part of what package workers writes.
	var r struct {
		Generations []struct {
			Workers []struct {
				PID   int    `json:"pid"`
				Start uint64 `json:"start"`
			} `json:"workers"`
		} `json:"generations"`
	}
	if json.Unmarshal(data, &r) != nil {
		return 0
	}
	for _, g := range r.Generations {
		for _, w := range g.Workers {
			if startOf(w.PID) == w.Start && w.Start != 0 {
				n++
			}
		}
	}
	return n
}

// startOf is when a process started, in clock ticks since boot; 0 if there is
// none, or a zombie.
func startOf(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third field on
	if len(f) < 20 || f[0] == "Z" {
		return 0
	}
	start, _ := strconv.ParseUint(f[19], 10, 64)
	return start
}
