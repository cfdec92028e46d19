package load

import (
	"bufio"
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"
)

const (
	thinkMin = 2 * time.Millisecond
	thinkMax = 10 * time.Millisecond
	idleFor  = 1500 * time.Millisecond

	minBody = 1 << 10
	maxBody = 16 << 10

	pipeline = 4
)

// A client sends one request (one pipeline) after the other.
type client struct {
	config *Config
	class  Class
	think  time.Duration // 0: thinkMin to thinkMax
	host   string
	tally  *Tally

	chacha *rand.ChaCha8
	random *rand.Rand
	paused bool // once at least
	dialed bool // once at least
	seq    int  // numbers the requests of Pipelined
}

func newClient(c *Config, p Plan) *client {
	var seed [32]byte
	crand.Read(seed[:])
	chacha := rand.NewChaCha8(seed)
	cl := &client{
		config: c, class: p.Class, think: p.Think, host: c.Addr, tally: newTally(),
		chacha: chacha, random: rand.New(chacha),
	}
	cl.tally.Clients = 1
	if p.Class == Idle && p.Think == 0 {
		cl.think = idleFor
	}
	if c.Network == "unix" {
		cl.host = "localhost"
	}
	return cl
}

func (c *client) run(ctx context.Context) {
	cf := c.config
	switch c.class {
	case PerConn:
		c.anew(ctx, "/", 0, notEmpty)
	case Slow:
		c.anew(ctx, "/slow?d="+cf.SlowFor.String(), cf.SlowFor, notEmpty)
	case Stream:
		c.anew(ctx, "/stream?d="+cf.StreamFor.String()+"&every="+cf.StreamEvery.String(), cf.StreamFor, inSequence)
	case KeepAlive, Idle:
		c.keep(ctx, c.echo)
	case Pipelined:
		c.keep(ctx, c.pipeline)
	}
}

// anew sends each request on a connection of its own.
func (c *client) anew(ctx context.Context, target string, takes time.Duration, check func(io.Reader) error) {
	request := []byte("GET " + target + " HTTP/1.1\r\nHost: " + c.host + "\r\nConnection: close\r\n\r\n")
	for ctx.Err() == nil {
		if k := c.dial(); k != nil {
			c.ask(k, request, c.config.RequestTimeout+takes-k.dialTook, check)
			k.Close()
		}
		c.pause(ctx)
	}
}

// keep has ask send its requests on one connection for as long as ask returns
// true, and then on the next.
func (c *client) keep(ctx context.Context, ask func(*conn) bool) {
	var k *conn
	defer func() {
		if k != nil {
			k.Close()
		}
	}()
	for first := true; ctx.Err() == nil; first = false {
		// The client dials before it thinks: a connection that has not yet
		// carried a request is one the server must not drop either.
		if k == nil {
			if k = c.dial(); k == nil {
				c.pause(ctx)
				continue
			}
		}
		if !first && !c.pause(ctx) {
			return
		}
		switch k.idle() {
		case talking:
			// A client that does not look takes this for the answer to the
			// request it is about to write, and so loses that one.
			c.tally.Requests++
			c.lose(k, 1, &fault{StageUnsolicited, errors.New("bytes came between two requests")})
			k.Close()
			k = nil
			continue
		case closed:
			c.tally.ServerClosedIdle++
			k.Close()
			if k = c.dial(); k == nil {
				c.pause(ctx)
				continue
			}
		}
		if !ask(k) {
			k.Close()
			k = nil
		}
	}
}

// dial connects, or loses the request that was to be sent and returns nil.
func (c *client) dial() *conn {
	k, err := dial(c.config.Network, c.config.Addr, c.config.RequestTimeout)
	if err != nil {
		c.tally.Requests++
		c.lose(nil, 1, &fault{StageConnect, err})
		return nil
	}
	if c.dialed && !c.fresh() {
		c.tally.Reconnects++
	}
	c.dialed = true
	return k
}

// fresh is whether the class has a connection for each request.
func (c *client) fresh() bool { return c.class == PerConn || c.class == Slow || c.class == Stream }

// ask sends one request and reads its answer. It returns whether the
// connection can carry another.
func (c *client) ask(k *conn, request []byte, timeout time.Duration, check func(io.Reader) error) bool {
	start := time.Now()
	c.tally.Requests++
	var last bool
	f := k.send(request, 1, timeout)
	if f == nil {
		last, f = k.receive(check)
	}
	if f == nil {
		f = k.surplus()
	}
	if f != nil {
		c.lose(k, 1, f)
		return false
	}
	c.answered(k, k.nth == 1, start)
	if last && !c.fresh() {
		c.tally.ConnectionClose++
	}
	return !last
}

func (c *client) echo(k *conn) bool {
	head := fmt.Appendf(nil, "POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: ", c.host)
	body := make([]byte, minBody+c.random.IntN(maxBody-minBody+1))
	c.chacha.Read(body)
	head = fmt.Appendf(head, "%d\r\n\r\n", len(body))
	return c.ask(k, append(head, body...), c.config.RequestTimeout, equal(body))
}

func (c *client) pipeline(k *conn) bool {
	var requests []byte
	for i := range pipeline {
		requests = fmt.Appendf(requests, "GET /n?i=%d HTTP/1.1\r\nHost: %s\r\n\r\n", c.seq+i, c.host)
	}
	from := c.seq
	c.seq += pipeline

	start := time.Now()
	c.tally.Requests += pipeline
	first := k.nth == 0
	if f := k.send(requests, pipeline, c.config.RequestTimeout); f != nil {
		c.lose(k, pipeline, f)
		return false
	}
	for i := range pipeline {
		last, f := k.receive(equal([]byte(strconv.Itoa(from + i))))
		if f == nil && i == pipeline-1 && !last {
			f = k.surplus()
		}
		// What follows an answer that says close is not the server's to
		// answer, whatever that answer is worth; else it is lost with it.
		behind := pipeline - 1 - i
		if last {
			c.tally.ConnectionClose++
			c.tally.Unanswered += behind
			behind = 0
		}
		if f != nil {
			c.lose(k, 1+behind, f)
			return false
		}
		c.answered(k, first, start)
		if last {
			return false
		}
	}
	return true
}

// answered counts a request that is OK. The connect counts for a first request.
func (c *client) answered(k *conn, first bool, start time.Time) {
	took := time.Since(start)
	if first {
		took += k.dialTook
	}
	c.tally.OK++
	c.tally.MaxLatency = max(c.tally.MaxLatency, took)
	if k.worker != "" {
		c.tally.PerWorker[k.worker]++
	}
}

// lose counts n requests lost by a fault, on k unless it is nil.
func (c *client) lose(k *conn, n int, f *fault) {
	failure := Failure{Time: time.Now(), Class: c.class, Stage: f.stage, Requests: n, Err: f.err}
	if k != nil {
		failure.Nth, failure.Bytes, failure.Worker = k.nth, k.bytes, k.worker
		failure.Local = k.LocalAddr().String()
	}
	c.tally.lose(failure)
}

// pause is the think time. It returns false when ctx is done.
func (c *client) pause(ctx context.Context) bool {
	d := c.think
	switch {
	case d == 0:
		d = c.jitter()
	case !c.paused:
		d = time.Duration(c.random.Int64N(int64(d))) + 1
	}
	c.paused = true
	return wait(ctx, d)
}

func (c *client) jitter() time.Duration {
	return thinkMin + time.Duration(c.random.Int64N(int64(thinkMax-thinkMin)))
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

func notEmpty(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n == 0 {
		return errors.New("empty")
	}
	return err
}

func equal(want []byte) func(io.Reader) error {
	return func(r io.Reader) error {
		got, err := io.ReadAll(r)
		if err != nil || bytes.Equal(got, want) {
			return err
		}
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		return fmt.Errorf("%d bytes instead of %d, the first that differs is %d", len(got), len(want), at)
	}
}

// inSequence checks "chunk 1\n", "chunk 2\n" and so on, up to "end\n".
func inSequence(r io.Reader) error {
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		switch {
		case err == io.EOF:
			return fmt.Errorf("ended with %q instead of chunk %d or end", line, n)
		case err != nil:
			return err
		case line == "end\n":
			if _, err := lines.ReadByte(); err != io.EOF {
				return errors.Join(errors.New("goes on after end"), err)
			}
			return nil
		case line != "chunk "+strconv.Itoa(n)+"\n":
			return fmt.Errorf("%q instead of chunk %d", line, n)
		}
	}
}
