//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/load"
	"github.com/baton-go/baton/integration/testapp/config"
)

// handler wraps load.Handler with the routes of main.go.
func handler(cfg config.Config, talks *sessions) http.Handler {
	mux := http.NewServeMux()
	var held holder
	mux.Handle("/", load.Handler(framework.WorkerID()))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, cfg.Version) })
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, os.Getenv(r.FormValue("name"))) })
	mux.HandleFunc("GET /fds", countFDs)
	mux.HandleFunc("GET /open", held.open)
	mux.HandleFunc("GET /release", held.release)
	mux.HandleFunc("GET /exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("GET /stray", stray)
	mux.HandleFunc("GET /hostile", hostile)
	mux.HandleFunc("POST /late", late)
	mux.HandleFunc("GET /session", talks.hijack)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failure(cfg) == config.FailRequests {
			http.Error(w, "testapp: fails as told", http.StatusInternalServerError)
			return
		}
		w.Header().Set("X-Version", cfg.Version)
		w.Header().Set("X-Worker", framework.WorkerID())
		mux.ServeHTTP(w, r)
	})
}

// late does not look at the body until its worker drains, or half a second has
// passed.
func late(w http.ResponseWriter, r *http.Request) {
	select {
	case <-framework.Draining(r.Context()):
	case <-time.After(500 * time.Millisecond):
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%q %v %v", body, err, r.Trailer)
}

func countFDs(w http.ResponseWriter, _ *http.Request) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, len(entries)-1) // the directory itself
}

// holder holds descriptors, so that the process has none left for others.
type holder struct {
	mu    sync.Mutex
	files []*os.File
}

func (h *holder) open(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil {
		http.Error(w, "n: "+err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	opened := 0
	for ; opened < n; opened++ {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		h.files = append(h.files, f)
	}
	fmt.Fprint(w, opened)
}

func (h *holder) release(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.files {
		f.Close()
	}
	fmt.Fprint(w, len(h.files))
	h.files = nil
}
