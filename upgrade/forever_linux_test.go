package upgrade

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What processes of any two releases say to each other. Nothing here may change;
// more may come after the last.

func TestWhatIsSaidIsForEver(t *testing.T) {
	have := fmt.Sprint(msgOffer, msgPrepared, msgFailed, msgEntry, msgFiles, msgEnd, msgReceived, msgGo, msgCancel, msgTaken)
	if have != "1 2 3 4 5 6 7 8 9 10" {
		t.Errorf("messages between masters are %s", have)
	}
	have = fmt.Sprint(int(NoticeHello), int(NoticeServes), int(NoticeStopping), int(NoticeReplaced), lineSignal)
	if have != "1 2 3 4 16" {
		t.Errorf("messages of the line to init are %s", have)
	}
	if have = fmt.Sprint(initEnv, " ", fileInit, " ", handoverFile); have != "_BATON_INIT baton/init baton/handover" {
		t.Errorf("names are %s", have)
	}
	a, b := ends(t)
	if err := send(a, time.Now().Add(patience), message{typ: msgOffer, payload: []byte("offer")}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if raw, err := io.ReadAll(b); err != nil || string(raw) != "\x01\x01\x00\x00\x05\x00\x00\x00offer" {
		t.Errorf("an offer is %q, %v", raw, err)
	}
}

// A later release says what this one does not know.
func TestLineIgnoresWhatItDoesNotKnow(t *testing.T) {
	l, theirs, err := newLine()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	defer unix.Close(theirs)
	for _, b := range [][]byte{
		{2, byte(NoticeHello), 0}, // another mark
		{1}, {1, byte(NoticeHello)},
		{1, 99, 0},                          // another type
		{1, byte(NoticeServes), 0, 7, 7, 7}, // with more to say
		{1, byte(NoticeStopping), 0},
	} {
		if _, err := unix.Write(theirs, b); err != nil {
			t.Fatal(err)
		}
	}
	var said []Notice
	heard, ended := l.take()
	for _, n := range heard {
		said = append(said, n.say)
	}
	if fmt.Sprint(said) != "[99 2 3]" || ended {
		t.Errorf("heard %v, ended %v", said, ended)
	}
	i := initProcess{line: l, course: course{phase: initRunning}}
	if _, err := unix.Write(theirs, []byte{1, 99, 0}); err != nil {
		t.Fatal(err)
	}
	i.listen()
	if i.phase != initRunning || i.served || i.asked {
		t.Errorf("init took it for %+v", i.course)
	}
	if err := l.signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	if n, err := unix.Read(theirs, b); err != nil || string(b[:n]) != "\x01\x10\x01" {
		t.Errorf("a signal is %q, %v", b[:n], err)
	}
}

// A predecessor that marks its messages otherwise is none of ours, and not gone.
func TestPredecessorOfAnotherWireIsNamed(t *testing.T) {
	a, b := ends(t)
	p := predecessorOn(t, b)
	if _, err := a.Write([]byte("\x01\x02\x00\x00\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Offer(); !errors.Is(err, errWire) || !strings.Contains(err.Error(), "of version 2, expected 1") || strings.Contains(err.Error(), "gone") {
		t.Errorf("%v", err)
	}
}
