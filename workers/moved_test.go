package workers

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestMovedSurvivesTheWire(t *testing.T) {
	for _, m := range []Moved{
		{},
		{Idle: 90 * time.Second, New: true},
		{Idle: time.Millisecond, Posted: true, Unread: []byte("GET / HT")},
		{New: true, Posted: true, Unread: bytes.Repeat([]byte("x"), MaxUnread)},
		{Handoff: true},
		{Handoff: true, State: []byte("state")},
		{Handoff: true, State: bytes.Repeat([]byte("s"), MaxState), Unread: bytes.Repeat([]byte("x"), MaxUnread)},
	} {
		id, listener, got, err := parseMoved(appendMoved(nil, 7, 3, m))
		if err != nil || id != 7 || listener != 3 || got.Idle != m.Idle || got.New != m.New ||
			got.Posted != m.Posted || !bytes.Equal(got.Unread, m.Unread) || got.Handoff != m.Handoff || !bytes.Equal(got.State, m.State) {
			t.Errorf("%d, %d, %+v, %v; sent %+v", id, listener, got, err, m)
		}
	}
}

func TestMovedThatIsTooLargeOrNoHandoffIsRefused(t *testing.T) {
	for name, m := range map[string]Moved{
		"unread": {Unread: make([]byte, MaxUnread+1)}, "unread of a handoff": {Handoff: true, Unread: make([]byte, MaxUnread+1)},
		"state": {Handoff: true, State: make([]byte, MaxState+1)}, "state of an idle one": {State: []byte("s")},
	} {
		if _, _, got, err := parseMoved(appendMoved(nil, 7, 3, m)); !errors.Is(err, errProtocol) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	whole := appendMoved(nil, 7, 3, Moved{Handoff: true, State: []byte("state")})
	if _, _, _, err := parseMoved(whole[:len(whole)-1]); !errors.Is(err, errProtocol) {
		t.Errorf("a state cut short: %v", err)
	}
}

func FuzzMoved(f *testing.F) {
	f.Add(appendMoved(nil, 1, 2, Moved{Idle: time.Second, Unread: []byte("G")}))
	f.Add(appendMoved(nil, 1, 2, Moved{Handoff: true, State: []byte("S"), Unread: []byte("U")}))
	f.Add([]byte{})
	f.Add(make([]byte, movedSize-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, listener, m, err := parseMoved(b)
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Errorf("%v is no protocol error", err)
			}
			return
		}
		if len(m.Unread) > MaxUnread || m.Idle < 0 || len(m.State) > MaxState || len(m.State) > 0 && !m.Handoff {
			t.Errorf("%+v", m)
		}
		id2, listener2, m2, err := parseMoved(appendMoved(nil, id, listener, m))
		if err != nil || id2 != id || listener2 != listener || m2.Idle != m.Idle || !bytes.Equal(m2.Unread, m.Unread) ||
			m2.Handoff != m.Handoff || !bytes.Equal(m2.State, m.State) {
			t.Errorf("%+v became %+v, %v", m, m2, err)
		}
	})
}
