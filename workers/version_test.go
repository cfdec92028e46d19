//go:build unix

package workers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baton-go/baton/workers/ipc"
)

func TestVersionsMeet(t *testing.T) {
	for _, tt := range []struct {
		a, b Versions
		meet bool
	}{
		{Versions{1, 1}, Versions{1, 1}, true},
		{Versions{1, 1}, Versions{2, 1}, true},
		{Versions{1, 1}, Versions{2, 2}, false},
		{Versions{2, 1}, Versions{3, 2}, true},
		{Versions{2, 1}, Versions{4, 3}, false},
		{Versions{5, 1}, Versions{3, 2}, true},
		{Versions{1, 1}, Versions{}, false},     // of a build that does not say
		{Versions{1, 5}, Versions{3, 3}, false}, // nonsense
		{Versions{1 << 62, -1 << 62}, Versions{1, 1}, true},
	} {
		if a, b := tt.a.Meets(tt.b), tt.b.Meets(tt.a); a != tt.meet || b != tt.meet {
			t.Errorf("%v and %v: %v, and the other way %v", tt.a, tt.b, a, b)
		}
	}
	if s := fmt.Sprint(Versions{2, 2}, ", ", Versions{3, 1}); s != "2, 1 to 3" {
		t.Error(s)
	}
}

// A release speaks with the one before and the one after it.
func TestOwnProtocol(t *testing.T) {
	if protocolClaim != "" {
		t.Fatalf("this is a build that claims %q", protocolClaim)
	}
	if p := Protocol(); p != (Versions{ProtocolVersion, OldestProtocol}) || ProtocolVersion > 1 && OldestProtocol >= ProtocolVersion {
		t.Errorf("it speaks %+v", p)
	}
	if v := ownProtocol("3-4"); v != (Versions{Newest: 4, Oldest: 3}) {
		t.Errorf("claimed %+v", v)
	}
	defer func() {
		if recover() == nil {
			t.Error("a bad claim was taken")
		}
	}()
	ownProtocol("four")
}

func FuzzVersions(f *testing.F) {
	f.Add([]byte(`{"newest":1,"oldest":1}`), []byte(`{"newest":2,"oldest":1,"other":[]}`))
	f.Add([]byte(`{"newest":-1}`), []byte(`{}`))
	f.Add([]byte(`null`), []byte(`{"oldest":99999999999999999999}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		v, err := decode[Versions](a)
		o, oerr := decode[Versions](b)
		if err != nil || oerr != nil {
			if !errors.Is(errors.Join(err, oerr), errProtocol) {
				t.Fatalf("errors %v, %v are no protocol errors", err, oerr)
			}
			return
		}
		if v.Meets(o) != o.Meets(v) || v.Meets(v) != (v.Oldest <= v.Newest) || v.String() == "" {
			t.Fatalf("%v and %v: %v, %v", v, o, v.Meets(o), o.Meets(v))
		}
	})
}

// What is said before versions are known, or is part of every version there was.
// Nothing here may change; more may come after the last.
func TestWhatIsSaidIsForEver(t *testing.T) {
	for _, tt := range []struct{ what, have, want string }{
		{"messages of a master", fmt.Sprint(msgHello, msgCommit, msgConn, msgPing, msgDrain, msgWelcome, msgMoved, msgReceipt, msgKeep, msgShared, msgStopping, msgTrust, msgAdopted),
			"1 2 3 4 5 6 7 8 9 10 11 12 13"},
		{"messages of a worker", fmt.Sprint(msgIntro, msgReady, msgFailed, msgAck, msgNack, msgPong, msgLeave, msgDrained, msgReturn, msgUnadopted, msgPresent),
			"64 65 66 67 68 69 70 71 72 73 74"},
		{"states of workers", fmt.Sprint(int(WorkerStarting), int(WorkerIsReady), int(WorkerServing), int(WorkerIsDraining), int(WorkerIsKilled), int(WorkerIsGone)),
			"0 1 2 3 4 5"},
		{"states of generations", fmt.Sprint(int(GenerationStarting), int(GenerationIsReady), int(GenerationIsServing), int(GenerationIsDraining)), "0 1 2 3"},
		{"descriptors", fmt.Sprint(workerIPC, workerPage, workerStderr, workerCrash, workerBinary, pageOpen, pageTotal, pageSize), "3 4 5 6 7 0 8 64"},
		{"frame", fmt.Sprintf("%x", ipc.AppendFrame(nil, msgPing, 2, []byte{0xff})), "0104020001000000ff"},
		{"marker", MarkerEnv + string(encode(marker{"n", 1, 2, "a"})), `_BATON_WORKER{"nonce":"n","generation":1,"slot":2,"argv0":"a"}`},
		{"greeting", string(encode(greeting{Protocol: Versions{2, 1}, Nonce: "n"})), `{"protocol":{"newest":2,"oldest":1},"nonce":"n","generation":0,"slot":0,"listeners":null,"committed":false}`},
		{"introduction", string(encode(Intro{Protocol: Versions{2, 1}, Nonce: "n", PID: 3, Settings: json.RawMessage("{}")})),
			`{"protocol":{"newest":2,"oldest":1},"nonce":"n","pid":3,"settings":{}}`},
		{"presence", string(encode(presence{Protocol: Versions{2, 1}, Nonce: "n", Generation: 3, Slot: 4})),
			`{"protocol":{"newest":2,"oldest":1},"nonce":"n","generation":3,"slot":4,"draining":false}`},
		{"takeover", string(encode(takeover{Protocol: Versions{2, 1}})), `{"protocol":{"newest":2,"oldest":1}}`},
	} {
		if tt.have != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.what, tt.have, tt.want)
		}
	}
}

// Both as this version writes them, with fields of a later one.
const (
	recordOfVersion1 = `{"protocol":{"newest":2,"oldest":1,"x":0},"pid":41,"start":4,"next":5,"override":3,"x":{},
		"drained":{"moved":{"idle":1},"soft_drained":{},"finished":{},"cut":{},"x":{}},
		"listeners":[{"key":"tcp|a","spec":{},"bound":"127.0.0.1:80","cookie":7,"x":0}],
		"generations":[{"number":3,"state":2,"protocol":{"newest":1,"oldest":1},"x":0,"binary":{"path":"/app","size":1,"mtime":"2026-01-02T03:04:05Z","build":{}},
			"options":{"Workers":1,"KillTimeout":5,"X":0},"wanted":1,"ledger":{},"workers":[
			{"listeners":["tcp|a"],"slot":2,"pid":%d,"state":2,"nonce":"secret","start":%d,"page":{"dev":1,"ino":2},"crash":{"dev":1,"ino":3},"unacked":null,"x":0}]}]}`
	handoverOfVersion1 = `{"protocol":{"newest":2,"oldest":1},"next_id":9,"override":0,"accepted":{"tcp|a":7},"x":0,
		"queue":[{"id":4,"listener":"tcp|a","generation":3,"at":"2026-01-02T03:04:05Z","moved":{"idle":5,"x":0},"token":true,"x":0}],
		"generations":[{"number":3,"state":2,"protocol":{"newest":1,"oldest":1},"binary":{},"env":["A=b"],"options":{},"wanted":1,"ledger":{},"x":0,"workers":[
			{"listeners":["tcp|a"],"slot":1,"pid":42,"state":3,"nonce":"n","expected":true,"entrusted":true,"fostered":false,"unacked":[{"id":8,"listener":"tcp|a"}],"x":0}]}]}`
)

func TestHandoverOfVersion1IsRead(t *testing.T) {
	var files []*os.File
	for range 2 + 1 + filesPerChild + 1 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	in, err := ParseHandover([]byte(handoverOfVersion1), files)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	g := in.state.Generations[0]
	w := g.Workers[0]
	if in.state.NextID != 9 || in.state.Accepted["tcp|a"] != 7 || g.Number != 3 || g.State != GenerationIsServing || g.Env[0] != "A=b" ||
		w.Slot != 1 || w.PID != 42 || w.State != WorkerIsDraining || w.Nonce != "n" || !w.Expected || !w.Entrusted || w.Unacked[0].ID != 8 {
		t.Errorf("%+v", in.state)
	}
}

// A worker of a later version may say more than this master knows.
func TestUnknownMessages(t *testing.T) {
	for _, tt := range []struct {
		name string
		typ  uint8
		ok   bool
	}{
		{"the first that is unknown", msgLater, true}, {"the last", 255, true},
		{"a master's", msgDrain, false}, {"none", 0, false},
	} {
		for _, later := range []bool{true, false} {
			for files := range 2 {
				f, closed := frameWith(t, tt.typ, files)
				err := new(Pool).receive(&child{later: later}, f)
				if ok := err == nil; ok != (tt.ok && later) || !ok && !errors.Is(err, errProtocol) {
					t.Errorf("%s, of a later version %v, with %d files: %v", tt.name, later, files, err)
				}
				closed()
			}
		}
	}
	f, closed := frameWith(t, msgAdopted+1, 1) // a worker hears everything
	new(Worker).hear(nil, f)
	closed()
}

// frameWith is a message with n files. closed waits until they are closed.
func frameWith(t *testing.T, typ uint8, n int) (f ipc.Frame, closed func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f = ipc.Frame{Type: typ, Payload: []byte("?")}
	for range n {
		fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		f.Files = append(f.Files, fd)
	}
	return f, func() {
		t.Helper()
		_ = r.SetReadDeadline(time.Now().Add(patience))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("files of message %d: %v", typ, err)
		}
		r.Close()
	}
}

func TestPoolAcceptsReleases(t *testing.T) {
	one, two, both, three := Versions{1, 1}, Versions{2, 1}, Versions{3, 2}, Versions{3, 3}
	pool := func(gs ...*generation) *Pool { return &Pool{generations: gs} }
	serves := func(v Versions) *generation { return &generation{number: 7, state: GenerationIsServing, speaks: v} }
	drains := func(v Versions) *generation { return &generation{number: 6, state: GenerationIsDraining, speaks: v} }
	for _, tt := range []struct {
		name string
		p    *Pool
		g    generation
		v    Versions
		is   error
		says string
	}{
		{"the same", pool(serves(two)), generation{}, two, nil, ""},
		{"an earlier one", pool(serves(two)), generation{}, one, nil, ""},
		{"a later one", pool(serves(two)), generation{}, both, ErrNeedsMaster, "it speaks protocol 2 to 3, this master 1 to 2: that takes a new master"},
		{"a later one, to go back", pool(serves(two)), generation{rollback: true}, both, nil, ""},
		{"too late a one", pool(serves(two)), generation{}, three, ErrIncompatible, "it speaks protocol 3, this master 1 to 2: no version is common to both"},
		{"too late a one, to go back", pool(serves(one)), generation{rollback: true}, three, ErrIncompatible, "protocol 3"},
		{"one that does not say", pool(serves(one)), generation{}, Versions{}, ErrIncompatible, "protocol 0"},
		{"the next master, of a later one", pool(drains(two), serves(both)), generation{probe: true}, both, ErrNeedsMaster, "2 to 3"},
		{"the next master, of an earlier one", pool(drains(three), serves(two)), generation{probe: true}, two, ErrIncompatible, "it speaks protocol 1 to 2, generation 6, which is draining, 3"},
		{"the next master, while a generation starts", pool(serves(one), &generation{}), generation{probe: true}, one, nil, ""},
		{"workers beside others", pool(drains(three), serves(two)), generation{}, two, nil, ""},
	} {
		err := tt.p.accepts(&tt.g, tt.v)
		if !errors.Is(err, tt.is) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
