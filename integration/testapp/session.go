//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/testapp/config"
)

// sessions are conversations by the line. Each line is answered with its number
// in the session, the worker, the version and the line itself:
//
//	7 2.1 v1 hello
//
// Beside that, "why" is answered with the error of the last handoff, and
// "handoff U S" hands the session off, with the U bytes that follow the line
// unread and S bytes of state at least. It is not answered if that succeeds.
type sessions struct {
	ctx     context.Context
	version string
}

func (s *sessions) options(cfg config.Config) (opts []framework.Option) {
	for _, l := range cfg.Listeners {
		if cfg.Adopt {
			opts = append(opts, framework.OnAdopt(l.Name, func(c net.Conn, state []byte) { s.adopt(c, l.Name, state) }))
		}
	}
	return opts
}

func (s *sessions) hijack(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	early, _ := rw.Peek(rw.Reader.Buffered())
	if _, err := fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n"); err != nil {
		c.Close()
		return
	}
	s.run(c, "", early, 0)
}

// adopt takes the number of lines answered, the listener if it was known, and
// what fills the state up.
func (s *sessions) adopt(c net.Conn, listener string, state []byte) {
	if len(state) < 8 {
		state = make([]byte, 8) // the client will notice
	}
	name := string(bytes.TrimRight(state[8:], "\x00"))
	if name != "" && name != listener {
		fmt.Fprintf(c, "of listener %s, adopted from %s\n", name, listener)
		c.Close()
		return
	}
	s.run(c, name, nil, binary.LittleEndian.Uint64(state))
}

func (s *sessions) run(c net.Conn, listener string, unread []byte, n uint64) {
	defer c.Close()
	defer framework.OnDrain(s.ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
	var why error
	handOff := func(size int) (gone bool) {
		state := append(binary.LittleEndian.AppendUint64(nil, n), listener...)
		why = framework.Handoff(c, unread, append(state, make([]byte, max(size-len(state), 0))...))
		return why == nil
	}
	more := func() (ok bool) {
		chunk := make([]byte, 32<<10)
		k, err := c.Read(chunk)
		unread = append(unread, chunk[:k]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if handOff(0) {
				return false
			}
			err = c.SetReadDeadline(time.Time{}) // and it goes on here
		}
		return err == nil
	}
	for {
		line, rest, whole := bytes.Cut(unread, []byte("\n"))
		if !whole {
			if !more() {
				return
			}
			continue
		}
		text := string(line)
		unread = rest
		n++
		var behind, size int
		switch _, err := fmt.Sscanf(text, "handoff %d %d", &behind, &size); {
		case err == nil:
			for len(unread) < behind {
				if !more() {
					return
				}
			}
			if handOff(size) {
				return
			}
			fallthrough
		case text == "why":
			text = strings.ReplaceAll(fmt.Sprint(why), "\n", " ")
		}
		if _, err := fmt.Fprintf(c, "%d %s %s %s\n", n, framework.WorkerID(), s.version, text); err != nil {
			return
		}
	}
}
