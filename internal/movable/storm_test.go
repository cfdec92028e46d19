package movable

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStormOfMovesLosesNoRequest pulls connections as fast as it can, under
// clients that send requests as fast as they can.
func TestStormOfMovesLosesNoRequest(t *testing.T) {
	const clients, perClient = 6, 350
	var served atomic.Int64
	echo := func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("body: %v", err)
		}
		fmt.Fprintf(w, "%s:%s", r.URL.Path[1:], body)
	}
	var all []*server
	for range 3 {
		all = append(all, start(t, &http.Server{
			ReadHeaderTimeout: patience, IdleTimeout: patience, ReadTimeout: 2 * patience,
		}, echo))
	}
	var asked atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		client, inner := streams(t, i%2 == 0)
		c := Wrap(inner)
		all[i%3].serve(c)
		enough := make(chan struct{})
		wg.Go(func() { // the client
			for n := 0; ; n++ {
				select {
				case <-enough:
					_ = client.Close()
					return
				default:
				}
				asked.Add(1)
				if err := ask(client, n); err != nil {
					t.Errorf("client %d, request %d: %v", i, n, err)
					_ = client.Close()
					return
				}
			}
		})
		wg.Go(func() { // the mover
			defer close(enough)
			end := time.Now().Add(patience)
			for moves := 0; moves < perClient && time.Now().Before(end); {
				m, ok := c.Pull(patience)
				if !ok {
					time.Sleep(time.Duration(moves%7) * 10 * time.Microsecond) // another moment each time
					continue
				}
				moves++
				if moves%10 == 0 {
					m.Conn = again(t, m.Conn)
				}
				next := all[(i+moves)%3]
				c = Resume(m, next.Server)
				next.serve(c)
			}
		})
	}
	wg.Wait()
	if served.Load() != asked.Load() {
		t.Errorf("%d requests served, %d asked", served.Load(), asked.Load())
	}
	t.Logf("%d moves under %d requests", clients*perClient, asked.Load())
}

// ask sends a request, in pieces, and checks the answer.
func ask(client net.Conn, n int) error {
	request := fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", n)
	want := strconv.Itoa(n) + ":"
	if n%3 == 0 {
		request = fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", n)
		want += "body"
	}
	cut := n % len(request)
	if n%2 == 0 {
		cut = n % 6
	}
	for _, part := range []string{request[:cut], request[cut:]} {
		if _, err := io.WriteString(client, part); err != nil {
			return err
		}
	}
	r := bufio.NewReader(client)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(got) != want || r.Buffered() > 0 {
		return fmt.Errorf("%s, %q, and %d bytes more; want %q", resp.Status, got, r.Buffered(), want)
	}
	return nil
}

// streams returns the ends of a TCP or a Unix connection.
func streams(t testing.TB, tcp bool) (client net.Conn, inner Stream) {
	if tcp {
		return pair(t)
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = c.Close()
	})
	_ = client.SetDeadline(time.Now().Add(patience))
	return client, c.(*net.UnixConn)
}

// again makes a new connection of the descriptor, as another process would.
func again(t testing.TB, c Stream) Stream {
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Error(err)
		return c
	}
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		t.Error(err)
		return c
	}
	_ = c.Close()
	t.Cleanup(func() { _ = nc.Close() })
	return nc.(Stream)
}

// TestPullAgainstRequestCloseAndHijack: whichever wins, it wins wholly.
func TestPullAgainstRequestCloseAndHijack(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/hijack") {
			_, _ = io.WriteString(w, "0:")
			return
		}
		c, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = buf.WriteString("hijacked")
		_ = buf.Flush()
	}
	first, second := start(t, &http.Server{}, h), start(t, &http.Server{}, h)
	pulled := map[string]int{}
	const rounds = 120
	for i := range rounds {
		for _, rival := range []string{"request", "close", "hijack", "server's timeout"} {
			client, inner := pair(t)
			c := Wrap(inner)
			first.serve(c)
			parkedSoon(t, c)
			done := make(chan struct{})
			ready := make(chan struct{})
			go func() {
				defer close(done)
				<-ready
				switch rival {
				case "request":
					_, _ = io.WriteString(client, rehearsedGet)
				case "close":
					_ = c.Close()
				case "hijack":
					_, _ = io.WriteString(client, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
				default:
					_ = c.SetReadDeadline(past)
				}
			}()
			close(ready)
			time.Sleep(time.Duration(i%12) * 5 * time.Microsecond)
			m, ok := c.Pull(patience)
			<-done
			if ok {
				pulled[rival]++
				second.serve(Resume(m, second.Server))
				if rival == "close" || rival == "server's timeout" {
					_, _ = io.WriteString(client, rehearsedGet)
				}
			}
			want := "HTTP/1.1 200 OK"
			switch {
			case rival == "hijack":
				want = "hijacked"
			case rival != "request" && !ok:
				want = ""
			}
			got := make([]byte, 15)
			n, err := io.ReadFull(client, got[:max(len(want), 1)])
			if string(got[:n]) != want || want == "" && err != io.EOF {
				t.Fatalf("%s: pulled %t, then read %q, %v", rival, ok, got[:n], err)
			}
			_ = client.Close()
		}
	}
	t.Logf("of %d pulled: %v", rounds, pulled)
}
