package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// A conn is one connection to the server, used by one client.
type conn struct {
	net.Conn
	r *bufio.Reader

	dialTook time.Duration
	nth      int    // requests written, the current one included
	bytes    int    // read since the last request was written
	worker   string // X-Worker of the last answer
}

// A fault is a failure and where it happened.
type fault struct {
	stage Stage
	err   error
}

func dial(network, addr string, timeout time.Duration) (*conn, error) {
	start := time.Now()
	d := net.Dialer{Deadline: start.Add(timeout)}
	d.SetMultipathTCP(false)
	nc, err := d.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: nc, dialTook: time.Since(start)}
	k.r = bufio.NewReader(socket{k})
	return k, nil
}

// socket counts what is read.
type socket struct{ k *conn }

func (s socket) Read(p []byte) (int, error) {
	n, err := s.k.Conn.Read(p)
	s.k.bytes += n
	return n, err
}

// send writes n requests at once. The deadline holds for their answers too.
func (k *conn) send(requests []byte, n int, timeout time.Duration) *fault {
	k.nth += n
	k.bytes = 0
	if err := k.SetDeadline(time.Now().Add(timeout)); err != nil {
		return &fault{StageWrite, err}
	}
	if _, err := k.Write(requests); err != nil {
		return &fault{StageWrite, err}
	}
	return nil
}

// receive reads one answer in full and has check look at its body. It returns
// whether the answer said that it is the last one on this connection.
func (k *conn) receive(check func(io.Reader) error) (last bool, _ *fault) {
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return false, &fault{StageReadHeader, err}
	}
	if w := resp.Header.Get("X-Worker"); w != "" {
		k.worker = w
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Close, &fault{StageBadStatus, errors.New(resp.Status)}
	}
	if resp.ContentLength < 0 && !slices.Contains(resp.TransferEncoding, "chunked") {
		return resp.Close, &fault{StageBadBody, errors.New("body ends with the connection: its end cannot be told from a cut")}
	}

	body := &watched{r: resp.Body}
	err = check(body)
	if err == nil {
		var n int64
		if n, err = io.Copy(io.Discard, body); n > 0 && err == nil {
			err = fmt.Errorf("%d bytes too many", n)
		}
	}
	switch {
	case body.err != nil:
		return resp.Close, &fault{StageReadBody, body.err}
	case err != nil:
		return resp.Close, &fault{StageBadBody, err}
	}
	return resp.Close, nil
}

// watched keeps the error of a read, so that a cut body is told from a wrong
// one whatever the check makes of it.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// surplus is the fault of bytes that follow the last answer awaited.
func (k *conn) surplus() *fault {
	if n := k.r.Buffered(); n > 0 {
		b, _ := k.r.Peek(min(n, 64))
		return &fault{StageUnsolicited, fmt.Errorf("%d bytes follow the answer: %q", n, b)}
	}
	return nil
}

// idleState is what a connection looks like between two requests.
type idleState int

const (
	quiet   idleState = iota // nothing came: as it should be
	closed                   // closed or reset by the server
	talking                  // the server sent something nobody asked for
)
