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
	} {
		id, listener, got, err := parseMoved(appendMoved(nil, 7, 3, m))
		if err != nil || id != 7 || listener != 3 || got.Idle != m.Idle || got.New != m.New ||
			got.Posted != m.Posted || !bytes.Equal(got.Unread, m.Unread) {
			t.Errorf("%d, %d, %+v, %v; sent %+v", id, listener, got, err, m)
		}
	}
}

func FuzzMoved(f *testing.F) {
	f.Add(appendMoved(nil, 1, 2, Moved{Idle: time.Second, Unread: []byte("G")}))
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
		if len(m.Unread) > MaxUnread || m.Idle < 0 {
			t.Errorf("%+v", m)
		}
		id2, listener2, m2, err := parseMoved(appendMoved(nil, id, listener, m))
		if err != nil || id2 != id || listener2 != listener || m2.Idle != m.Idle || !bytes.Equal(m2.Unread, m.Unread) {
			t.Errorf("%+v became %+v, %v", m, m2, err)
		}
	})
}
