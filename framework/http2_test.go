package framework

import (
	"encoding/binary"
	"io"
	"net/http"
	"testing"
	"time"
)

// h2 is a client of HTTP/2 without TLS that shows the frames.
type h2 struct{ *client }

const (
	frameData     = 0x0
	frameHeaders  = 0x1
	frameSettings = 0x4
	framePing     = 0x6
	frameGoAway   = 0x7

	flagEnd     = 0x1 // of a stream; an acknowledgement in SETTINGS and PING
	flagHeaders = 0x4 // all of them
)

func dialH2(t *testing.T, addr string) h2 {
	c := h2{dial(t, addr)}
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	c.frame(frameSettings, 0, 0, "")
	return c
}

func (c h2) frame(typ, flags byte, stream uint32, payload string) {
	c.t.Helper()
	b := append(make([]byte, 0, 9+len(payload)), 0, byte(len(payload)>>8), byte(len(payload)), typ, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	c.send(string(append(b, payload...)))
}

// get begins a request: GET, http and the path as HPACK has them.
func (c h2) get(stream uint32, path string) {
	c.t.Helper()
	header := "\x82\x86" + "\x04" + string(rune(len(path))) + path + "\x01\x04test"
	c.frame(frameHeaders, flagEnd|flagHeaders, stream, header)
}

// next returns the next frame of a stream, acknowledging what has to be.
func (c h2) next() (typ, flags byte, stream uint32, payload string) {
	c.t.Helper()
	head := make([]byte, 9)
	if _, err := io.ReadFull(c.r, head); err != nil {
		c.t.Fatalf("frame: %v", err)
	}
	body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c.r, body); err != nil {
		c.t.Fatalf("frame: %v", err)
	}
	if head[3] == frameSettings && head[4] == 0 {
		c.frame(frameSettings, flagEnd, 0, "")
	}
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), string(body)
}

// body reads on until the stream has ended; goneAway is whether GOAWAY came.
func (c h2) body(stream uint32) (text string, goneAway bool) {
	c.t.Helper()
	for {
		typ, flags, id, payload := c.next()
		switch {
		case typ == frameGoAway:
			goneAway = true
		case typ == frameData && id == stream:
			text += payload
		}
		if (typ == frameData || typ == frameHeaders) && id == stream && flags&flagEnd != 0 {
			return text, goneAway
		}
	}
}

func withH2C() Option {
	return HTTPServer(func(s *http.Server) {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
	})
}

// TestDrainOfHTTP2: a request during the grace is answered and brings GOAWAY,
// and the streams that are open finish.
func TestDrainOfHTTP2(t *testing.T) {
	a := launchApp(t, withH2C(), IdleGrace(time.Hour))
	c := dialH2(t, a.address)
	c.get(1, "/hold")
	await(t, a.entered, "the request")
	a.drain()
	c.get(3, "/")
	text, goneAway := c.body(3)
	if text != "hello" {
		t.Errorf("during the drain %q", text)
	}
	for !goneAway {
		typ, _, _, _ := c.next()
		goneAway = typ == frameGoAway
	}
	a.running()
	a.release <- struct{}{}
	if text, _ = c.body(1); text != "held" {
		t.Errorf("the stream gave %q", text)
	}
	a.finish("cut=0")
}

// TestIdleHTTP2EndsAfterTheGrace: frames that belong to no stream, such as the
// answer to a SETTINGS or a PING, do not make a connection look busy.
func TestIdleHTTP2EndsAfterTheGrace(t *testing.T) {
	const grace = 300 * time.Millisecond
	a := launchApp(t, withH2C(), IdleGrace(grace))
	c := dialH2(t, a.address)
	c.get(1, "/")
	if text, _ := c.body(1); text != "hello" {
		t.Errorf("body %q", text)
	}
	c.frame(framePing, 0, 0, "12345678")
	for {
		if typ, flags, _, _ := c.next(); typ == framePing && flags&flagEnd != 0 {
			break
		}
	}
	began := time.Now()
	a.stop()
	_, _ = io.Copy(io.Discard, c.r)
	if took := time.Since(began); took < grace || took > patience/2 {
		t.Errorf("closed after %v", took)
	}
	a.finish("cut=0")
}
