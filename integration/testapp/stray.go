//go:build linux

package main

import (
	"net/http"
	"os/exec"
	"strconv"
	"time"
)

// stray starts a process whose parent ends at once: it becomes init's.
func stray(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("d"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	seconds := strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
	out, err := exec.Command("sh", "-c", "sleep "+seconds+" >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(out)
}
