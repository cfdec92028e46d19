// Package tiny is the handler that servers are compared by for speed. It does
// next to nothing, and its answers have the same headers and size from any
// server.
package tiny

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// What is asked for.
const (
	Hello = "/"     // 3 bytes
	MiB   = "/mib"  // 1 MiB from memory
	File  = "/file" // the file, anew from the file system each time
)

// Size of what MiB answers with.
const Size = 1 << 20

// Worker is the header that names who has answered.
const Worker = "X-Worker"

// ID has the same length for all workers.
func ID(id string) string { return fmt.Sprintf("%08s", id) }

// Body is what MiB answers with.
func Body() []byte { return []byte(strings.Repeat("x", Size)) }

// Handler answers as the worker id.
func Handler(id, file string) http.Handler {
	hello, mib := []byte("ok\n"), Body()
	id = ID(id)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(Worker, id)
		switch r.URL.Path {
		case Hello:
			answer(w, hello)
		case MiB:
			answer(w, mib)
		case File:
			answerFile(w, file)
		default:
			http.NotFound(w, r)
		}
	})
}

func answer(w http.ResponseWriter, body []byte) {
	head(w.Header(), int64(len(body)))
	_, _ = w.Write(body) // the client that has gone notices by itself
}

// answerFile leaves the way open for sendfile.
func answerFile(w http.ResponseWriter, path string) {
	f, err := os.Open(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	head(w.Header(), info.Size())
	_, _ = io.Copy(w, f)
}

func head(h http.Header, size int64) {
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
}
