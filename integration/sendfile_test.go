//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/baton-go/baton/internal/control"
)

// tracer is an strace of the sendfile calls of a process.
type tracer struct {
	t    *testing.T
	cmd  *exec.Cmd
	path string
	said *syncBuffer
}

// syncBuffer is what a command says, for who waits for it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// traceSendfile begins to trace a process, and returns once it does. Without
// strace, or where nobody may trace, the test cannot be done.
func traceSendfile(t *testing.T, pid int) *tracer {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed, and is needed to see how files are sent")
	}
	tr := &tracer{t: t, path: filepath.Join(t.TempDir(), "trace"), said: &syncBuffer{}}
	tr.cmd = exec.Command(strace, "-f", "-e", "trace=sendfile", "-o", tr.path, "-p", strconv.Itoa(pid))
	tr.cmd.Stderr = tr.said
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tr.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = tr.cmd.Process.Kill()
		<-ended
	})
	eventually(t, waitTime, "strace is attached", func() bool {
		select {
		case <-ended:
			if s := tr.said.String(); strings.Contains(s, "Operation not permitted") {
				t.Skipf("this test needs to be allowed ptrace: %s", s)
			}
			t.Fatalf("strace has ended: %s", tr.said)
		default:
		}
		return strings.Contains(tr.said.String(), "attached")
	})
	return tr
}

var sent = regexp.MustCompile(`sendfile\(.*\)\s*= (\d+)|sendfile resumed.*\)\s*= (\d+)`)

// sniffed is how much of a file net/http copies first by itself.
const sniffed = 512

// requireSent waits until so many bytes were sent by sendfile, and ends the trace.
func (tr *tracer) requireSent(n int) {
	tr.t.Helper()
	defer func() { _ = tr.cmd.Process.Signal(syscall.SIGINT) }()
	var trace []byte
	total := 0
	for end := time.Now().Add(waitTime); total < n && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		trace, _ = os.ReadFile(tr.path)
		total = 0
		for _, m := range sent.FindAllSubmatch(trace, -1) {
			k, _ := strconv.Atoi(string(m[1]) + string(m[2]))
			total += k
		}
	}
	if total != n {
		tr.t.Errorf("%d bytes were sent by sendfile, want %d:\n%s", total, n, trace)
	}
}

// Neither the wrapper of the connection nor its move costs the copy that
// sendfile saves.
func TestFilesAreSentBySendfile(t *testing.T) {
	const size = 1 << 20
	s := newService(t, appConfig{Version: "v1", Workers: 1})
	f := s.connectTo("1.1")
	for _, when := range []string{"as accepted", "after a move", "after another"} {
		w := s.workers()[0]
		tr := traceSendfile(t, w.PID)
		if err := f.send("/file?size=" + strconv.Itoa(size)); err != nil {
			t.Fatal(err)
		}
		_ = f.c.SetReadDeadline(time.Now().Add(waitTime))
		res, err := http.ReadResponse(f.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("X-Worker"); got != w.ID {
			t.Fatalf("%s: worker %s answers, want %s", when, got, w.ID)
		}
		body := bufio.NewReader(res.Body)
		for i := range size {
			if b, err := body.ReadByte(); err != nil || b != byte(i%251) {
				t.Fatalf("%s: byte %d is %d, %v", when, i, b, err)
			}
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		tr.requireSent(size - sniffed)
		if v := s.reload(); !v.OK {
			t.Fatalf("reload: %+v", v)
		}
		s.waitStatus("the connection has moved", func(st control.Status) bool {
			return oneGeneration(st) && open(serving(st)) == 1
		})
	}
}
