package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gobwas/ws"

	"github.com/baton-go/baton/framework"
)

// session is one WebSocket; what is exported moves along with it.
type session struct {
	ctx      context.Context
	Messages int `json:"messages"`
}

// run talks until the client leaves or another worker takes over. early is what
// the client has sent and net/http has read.
func (s *session) run(c net.Conn, early []byte) {
	// Most of the time it waits for a frame: the drain has to wake it.
	defer framework.OnDrain(s.ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
	in := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), c), framework.MaxHandoffUnread)
	for {
		f, err := next(in)
		var answer ws.Frame
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.handOff(c, in) == nil {
				return
			}
			answer = closing(ws.StatusGoingAway, "")
		case errors.Is(err, errFrame):
			answer = closing(ws.StatusProtocolError, err.Error())
		case err != nil:
			return
		case f.Header.OpCode == ws.OpText:
			s.Messages++
			answer = ws.NewTextFrame(fmt.Appendf(nil, "%s: %d %s", framework.WorkerID(), s.Messages, f.Payload))
		case f.Header.OpCode == ws.OpPing:
			answer = ws.NewPongFrame(f.Payload)
		case f.Header.OpCode == ws.OpPong:
			continue
		case f.Header.OpCode == ws.OpClose:
			code, _ := ws.ParseCloseFrameData(f.Payload)
			answer = closing(code, "")
		default:
			answer = closing(ws.StatusUnsupportedData, "text only")
		}
		if ws.WriteFrame(c, answer) != nil || answer.Header.OpCode == ws.OpClose {
			return
		}
	}
}

// handOff gives the session to a worker of the release that serves now. What
// there is of the next frame is still in the buffer, and goes along.
func (s *session) handOff(c net.Conn, in *bufio.Reader) error {
	unread, _ := in.Peek(in.Buffered())
	state, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return framework.Handoff(c, unread, state)
}

var errFrame = errors.New("not a frame for us")

// next takes a frame out of the buffer once all of it is there. A read that is
// interrupted before has taken nothing. A message has to be one frame, and not
// larger than the buffer.
func next(in *bufio.Reader) (ws.Frame, error) {
	for need := ws.MinHeaderSize; ; {
		b, err := in.Peek(need)
		if errors.Is(err, bufio.ErrBufferFull) {
			return ws.Frame{}, fmt.Errorf("%w: more than %d bytes", errFrame, in.Size())
		}
		if err != nil {
			return ws.Frame{}, err
		}
		h, err := ws.ReadHeader(bytes.NewReader(b))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			need++ // of the header
			continue
		}
		if err == nil {
			err = ws.CheckHeader(h, ws.StateServerSide)
		}
		if err == nil && !h.Fin {
			err = errors.New("fragments")
		}
		if err != nil {
			return ws.Frame{}, fmt.Errorf("%w: %w", errFrame, err)
		}
		size := int64(ws.HeaderSize(h)) + h.Length
		if size > int64(in.Size()) {
			size = int64(in.Size()) + 1 // which Peek refuses
		}
		if int64(need) < size {
			need = int(size)
			continue
		}
		f, err := ws.ReadFrame(in)
		return ws.UnmaskFrameInPlace(f), err
	}
}

func closing(code ws.StatusCode, reason string) ws.Frame {
	if code.Empty() { // the client gave none
		return ws.NewCloseFrame(nil)
	}
	return ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason))
}
