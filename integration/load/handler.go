package load

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	maxEcho = 1 << 20
	maxFile = 64 << 20
	maxTime = 10 * time.Minute
)

// Handler is what test servers answer the clients with. All answers, those of
// an unknown route too, carry X-Worker: id.
//
//	GET  /                    "ok\n"
//	POST /echo                the bytes of the request
//	GET  /slow?d=2s           "slow 2s\n", after that time
//	GET  /stream?d=5s&every=1s  "chunk 1\n" … "chunk 5\n", "end\n", each flushed
//	GET  /n?i=K               K
//	GET  /pid                 the process id
//	GET  /file?size=N         N bytes of a file, byte i being i mod 251
//
// /slow and /stream abort the connection when the request's context ends
// before they do: the client has gone, or a server has cancelled a request it
// should have let finish, which is then seen as lost.
func Handler(id string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /stream", stream)
	mux.HandleFunc("GET /n", number)
	mux.HandleFunc("GET /pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	mux.HandleFunc("GET /file", file)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Worker", id)
		mux.ServeHTTP(w, r)
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func slow(w http.ResponseWriter, r *http.Request) {
	d, err := duration(r, "d")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !wait(r.Context(), d) {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(w, "slow %s\n", d)
}

func stream(w http.ResponseWriter, r *http.Request) {
	d, err := duration(r, "d")
	every, everyErr := duration(r, "every")
	if err := errors.Join(err, everyErr); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rc := http.NewResponseController(w)
	send := func(line string) {
		if _, err := io.WriteString(w, line); err != nil {
			panic(http.ErrAbortHandler)
		}
		if err := rc.Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := rc.Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; n <= int(d/every); n++ {
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-tick.C:
			send("chunk " + strconv.Itoa(n) + "\n")
		}
	}
	send("end\n")
}

func number(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("i"))
	if err != nil {
		http.Error(w, "i: "+err.Error(), http.StatusBadRequest)
		return
	}
	io.WriteString(w, strconv.Itoa(n))
}

// file answers from a real file, so that a server's sendfile path is taken.
func file(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.Atoi(r.FormValue("size"))
	if err != nil || size < 0 || size > maxFile {
		http.Error(w, fmt.Sprintf("size: want 0 to %d", maxFile), http.StatusBadRequest)
		return
	}
	f, err := os.CreateTemp("", "load-file-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.Remove(f.Name()) // after Close: deferred calls run last first
	defer f.Close()

	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i % 251)
	}
	if _, err := f.Write(content); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}

func duration(r *http.Request, name string) (time.Duration, error) {
	d, err := time.ParseDuration(r.FormValue(name))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if d <= 0 || d > maxTime {
		return 0, fmt.Errorf("%s: want more than 0 and at most %s", name, maxTime)
	}
	return d, nil
}
