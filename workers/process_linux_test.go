package workers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/internal/leaktest"
)

// startTask starts this binary with a task; what it writes to stdin keeps it.
func startTask(t *testing.T, task string) (p *process, stdin *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	p, err = startProcess("/proc/self/exe", []string{"task"}, &syscall.ProcAttr{
		Env:   append(os.Environ(), taskEnv+"="+task),
		Files: []uintptr{r.Fd(), 1, 2},
		Sys:   &syscall.SysProcAttr{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, w
}

func TestChildsStatusIsTold(t *testing.T) {
	p, _ := startTask(t, "exit 3")
	if s := p.wait(); s != "exit status 3" {
		t.Errorf("status %q", s)
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal after the exit: %v", err)
	}

	p, _ = startTask(t, "stay")
	waited := make(chan string)
	go func() { waited <- p.wait() }()
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := <-waited; s != "signal: killed" {
		t.Errorf("status %q", s)
	}

	p, stdin := startTask(t, "stay")
	go func() { waited <- p.wait() }()
	stdin.Close()
	if s := <-waited; s != "exit status 0" {
		t.Errorf("status %q", s)
	}
}

func TestStatusText(t *testing.T) {
	for ws, want := range map[syscall.WaitStatus]string{
		0: "exit status 0", 3 << 8: "exit status 3", 9: "signal: killed",
		0x80 | 6: "signal: aborted (core dumped)", 0x137f: "wait status 0x137f",
	} {
		if got := statusText(ws); got != want {
			t.Errorf("%#x: %q, want %q", uint32(ws), got, want)
		}
	}
}

func TestAdoptedProcessEndsUnknown(t *testing.T) {
	// A process of another process': this one starts it and waits for it.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), taskEnv+"=foster")
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
	var pid int
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &pid); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := adoptProcess(pid, os.NewFile(uintptr(fd), "pidfd"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	handle, err := p.handle()
	if err != nil {
		t.Fatal(err)
	}
	again, err := adoptProcess(pid, handle)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	waited := make(chan string, 2)
	for _, p := range []*process{p, again} {
		go func() { waited <- p.wait() }()
	}
	select {
	case s := <-waited:
		t.Fatalf("ended with %q while it lives", s)
	default:
	}
	stdin.Close()
	for range 2 {
		if s := <-waited; s != "unknown" {
			t.Errorf("status %q", s)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal after the exit: %v", err)
	}
}

func TestPinnedBinaryRunsThoughReplacedOnDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := Pin(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Build.GoVersion == "" || b.Size != int64(len(exe)) {
		t.Errorf("build %+v, size %d", b.Build, b.Size)
	}
	write(path+".new", "exit 7")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	run := func(path string) string {
		p, err := startProcess(path, []string{"app"}, &syscall.ProcAttr{
			Env: append(os.Environ(), taskEnv+"=exit 3"), Files: []uintptr{0, 1, 2, b.file.Fd()}, Sys: &syscall.SysProcAttr{},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		return p.wait()
	}
	if s := run(b.execPath(3)); s != "exit status 3" {
		t.Errorf("pinned: %s", s)
	}
	if s := run(path); s != "exit status 7" {
		t.Errorf("on disk: %s", s)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s := run(b.execPath(3)); s != "exit status 3" {
		t.Errorf("pinned and removed: %s", s)
	}
}

// TestWorkerProcess meets a real worker: started from a pinned binary, greeted,
// given a connection, drained.
func TestWorkerProcess(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Pin(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	env := append(os.Environ(), taskEnv+"=worker", "NOTIFY_SOCKET=/x", "LISTEN_FDS=1", "LISTEN_ADDR=:80", MarkerEnv+"=old")
	s, err := start(b, ID{4, 2}, Config{Argv: []string{"/opt/app", "-x"}, Dir: "/"}, env, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	say := func(typ uint8, v any) {
		t.Helper()
		var payload []byte
		if v != nil {
			payload = encode(v)
		}
		if err := s.conn.Send(typ, payload, nil); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(typ uint8) []byte {
		t.Helper()
		f, err := s.conn.Recv()
		if err != nil || f.Type != typ {
			t.Fatalf("message %d, %v, want %d; stderr: %s", f.Type, err, typ, s.out)
		}
		return f.Payload
	}
	say(msgHello, greeting{
		Protocol: protocol, Nonce: s.nonce, Generation: 4, Slot: 2,
		Listeners: []ListenerInfo{{Name: "l", Network: "tcp", Address: "127.0.0.1:80"}},
	})
	in, err := decode[Intro](hear(msgIntro))
	if err != nil || in.Nonce != s.nonce || in.PID != s.proc.pid || in.Protocol != protocol {
		t.Fatalf("intro %+v, %v", in, err)
	}
	want := `{"args":["/opt/app","-x"],"env":["LISTEN_ADDR=:80"],"id":"4.2","cloexec":true,"dir":"/"}`
	if string(in.Settings) != want {
		t.Errorf("it says %s\nwant    %s", in.Settings, want)
	}
	if pgid, err := unix.Getpgid(s.proc.pid); err != nil || pgid != s.proc.pid {
		t.Errorf("process group %d of %d, %v", pgid, s.proc.pid, err)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.proc.pid)); err != nil || strings.TrimSpace(string(comm)) != "app" {
		t.Errorf("comm %q, %v", comm, err)
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.proc.pid)); err != nil || string(cmdline) != "app: worker 4.2\x00-x\x00" {
		t.Errorf("command line %q, %v", cmdline, err)
	}
	say(msgWelcome, nil)
	hear(msgReady)
	<-s.out.done // stderr went back to the inherited one
	if out := s.out.String(); out != "about to be ready" {
		t.Errorf("stderr before it was ready: %q", out)
	}
	client, fd := tcpPair(t)
	if err := s.conn.Send(msgConn, appendConn(nil, 5, 0), []int{fd}); err != nil {
		t.Fatal(err)
	}
	if id := idAt(hear(msgAck), 0); id != 5 {
		t.Errorf("acknowledged %d", id)
	}
	unix.Close(fd)
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if open, total := readCounters(s.page); open != 1 || total != 1 {
		t.Errorf("counters %d open, %d in all", open, total)
	}
	say(msgDrain, DrainOrder{Timeout: 1, Reason: "test"})
	if r, err := decode[Drained](hear(msgDrained)); err != nil || r.Finished.Total() != 1 {
		t.Errorf("report %+v, %v", r, err)
	}
	if status := s.proc.wait(); status != "exit status 2" {
		t.Errorf("status %q", status)
	}
	if open, _ := readCounters(s.page); open != 1 {
		t.Errorf("%d open connections died with it, want 1", open)
	}
	if trace := readTrace(s.crash); !strings.Contains(trace, "panic: the end") {
		t.Errorf("crash trace %q", trace)
	}
}

func TestGreetingWithAnotherNonceIsRefused(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Pin(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s, err := start(b, ID{1, 1}, Config{Argv: []string{"app"}, Dir: "/"}, append(os.Environ(), taskEnv+"=worker"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.conn.Send(msgHello, encode(greeting{Nonce: "another"}), nil); err != nil {
		t.Fatal(err)
	}
	status := s.proc.wait()
	<-s.out.done
	if status != "exit status 1" || !strings.Contains(s.out.String(), "not the one that started this process") {
		t.Errorf("%s, stderr %q", status, s.out)
	}
}

func TestStrayMarkerMakesNoWorker(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), taskEnv+"=stray", MarkerEnv+"="+string(encode(marker{Nonce: "n", Generation: 1, Slot: 1, Argv0: "a"})))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd.ExtraFiles = []*os.File{r}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestStartFailsCleanly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(path, []byte("no program at all"), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := Pin(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	before := leaktest.OpenFiles()
	if s, err := start(b, ID{1, 1}, Config{Argv: []string{"app"}, Dir: "/"}, nil, io.Discard); err == nil || s != nil || !strings.Contains(err.Error(), path) {
		t.Errorf("start: %v, %v", s, err)
	}
	for fd, target := range leaktest.Leaked(before) {
		t.Errorf("leaked %s: %s", fd, target)
	}
}
