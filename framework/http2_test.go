package framework

import (
	"crypto/tls"
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

func dialH2(t *testing.T, addr string) h2 { return beginH2(dial(t, addr)) }

// beginH2 makes HTTP/2 of a connection on which nothing has been sent.
func beginH2(conn *client) h2 {
	c := h2{conn}
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

// goAway reads on until GOAWAY, and returns the last stream that it names.
func (c h2) goAway() uint32 {
	c.t.Helper()
	for {
		if typ, _, _, payload := c.next(); typ == frameGoAway {
			return binary.BigEndian.Uint32([]byte(payload))
		}
	}
}

// ping returns when the server has seen all that was sent.
func (c h2) ping() {
	c.t.Helper()
	c.frame(framePing, 0, 0, "12345678")
	for {
		switch typ, flags, _, _ := c.next(); {
		case typ == framePing && flags&flagEnd != 0:
			return
		case typ == frameHeaders || typ == frameData:
			c.t.Error("an answer, and none was expected")
		}
	}
}

func withH2C() Option { return HTTPServer(unencryptedHTTP2) }

func unencryptedHTTP2(s *http.Server) {
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
}

// withOwnHTTP2 is an application that has set HTTP/2 up itself.
func withOwnHTTP2() Option {
	return HTTPServer(func(s *http.Server) {
		unencryptedHTTP2(s)
		other := &http.Server{Protocols: s.Protocols}
		_ = other.Serve(noListener{})
		s.TLSNextProto = other.TLSNextProto
	})
}

// TestHTTP2IsToldAtTheStartOfTheDrain: GOAWAY comes although the client does
// nothing, the stream that is open finishes, later ones are left to the client
// to repeat elsewhere, and then the connection ends.
func TestHTTP2IsToldAtTheStartOfTheDrain(t *testing.T) {
	a := launchApp(t, withH2C(), IdleGrace(time.Hour))
	c := dialH2(t, a.address)
	c.get(1, "/hold")
	await(t, a.entered, "the request")
	a.drain()
	if last := c.goAway(); last != 1 {
		t.Errorf("GOAWAY names stream %d", last)
	}
	c.get(3, "/")
	c.ping()
	a.running()
	a.release <- struct{}{}
	if text, _ := c.body(1); text != "held" {
		t.Errorf("the stream gave %q", text)
	}
	c.ended()
	a.finish("cut=0 soft_drained=1 finished=0")
}

// TestIdleHTTP2EndsAfterGoAway, and does not wait for the grace: neither one
// that was used nor one that has only said what it speaks, before the drain or
// in it.
func TestIdleHTTP2EndsAfterGoAway(t *testing.T) {
	a := launchApp(t, withH2C(), IdleGrace(time.Hour))
	used, unused, late := dialH2(t, a.address), dialH2(t, a.address), dial(t, a.address)
	used.get(1, "/")
	if text, _ := used.body(1); text != "hello" {
		t.Errorf("body %q", text)
	}
	unused.ping()
	a.drain()
	if last := used.goAway(); last != 1 {
		t.Errorf("used: GOAWAY names stream %d", last)
	}
	if last := unused.goAway(); last != 0 {
		t.Errorf("unused: GOAWAY names stream %d", last)
	}
	beginH2(late).goAway()
	for _, c := range []*client{used.client, unused.client, late} {
		_, _ = io.Copy(io.Discard, c.r)
	}
	a.finish("cut=0 soft_drained=3 finished=0")
}

// TestDrainOfHTTP2OfTheApplication: where there is nobody who could send GOAWAY,
// it comes with the next answer.
func TestDrainOfHTTP2OfTheApplication(t *testing.T) {
	a := launchApp(t, withOwnHTTP2(), IdleGrace(time.Hour))
	c := dialH2(t, a.address)
	c.get(1, "/hold")
	await(t, a.entered, "the request")
	a.drain()
	c.get(3, "/")
	text, goneAway := c.body(3)
	if text != "hello" {
		t.Errorf("during the drain %q", text)
	}
	if !goneAway {
		c.goAway()
	}
	a.running()
	a.release <- struct{}{}
	if text, _ = c.body(1); text != "held" {
		t.Errorf("the stream gave %q", text)
	}
	a.finish("cut=0 soft_drained=1 finished=0")
}

// TestIdleHTTP2OfTheApplicationEndsAfterTheGrace: frames that belong to no
// stream, such as the answer to a SETTINGS or a PING, do not make a connection
// look busy.
func TestIdleHTTP2OfTheApplicationEndsAfterTheGrace(t *testing.T) {
	const grace = 300 * time.Millisecond
	a := launchApp(t, withOwnHTTP2(), IdleGrace(grace))
	c := dialH2(t, a.address)
	c.get(1, "/")
	if text, _ := c.body(1); text != "hello" {
		t.Errorf("body %q", text)
	}
	c.ping()
	began := time.Now()
	a.stop()
	_, _ = io.Copy(io.Discard, c.r)
	if took := time.Since(began); took < grace || took > patience/2 {
		t.Errorf("closed after %v", took)
	}
	a.finish("cut=0 soft_drained=1 finished=0")
}

// TestHTTP2IsLeftAlone where the application wants none.
func TestHTTP2IsLeftAlone(t *testing.T) {
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	none := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	for name, srv := range map[string]*http.Server{
		"protocols":  {Protocols: http1},
		"no map":     {TLSNextProto: none},
		"TLS config": {TLSConfig: &tls.Config{NextProtos: []string{"http/1.1"}}},
	} {
		if newHTTP2(srv) != nil || len(srv.TLSNextProto) > 0 {
			t.Errorf("%s: HTTP/2 is served", name)
		}
	}
	if srv := new(http.Server); newHTTP2(srv) == nil || srv.TLSNextProto["h2"] == nil {
		t.Error("by default HTTP/2 is not served: this net/http is not the one that we know")
	}
}
