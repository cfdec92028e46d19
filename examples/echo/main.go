// Echo answers each line with its number in the session. Deploys do not end
// sessions: the connection moves to the new release, and the count goes on.
//
//	go build -o /tmp/echo ./examples/echo && /tmp/echo -listen localhost:7000
//	nc localhost 7000        # in another terminal; type lines
//	pkill -HUP -o -x echo    # in a third one: the worker's name changes, the count does not
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/listener"
)

const name = "default" // of the listener

func main() {
	address := flag.String("listen", "", `address, such as "localhost:7000" (default ":$PORT", or ":8080")`)
	flag.Parse()
	s := &server{}
	opts := []framework.Option{framework.OnAdopt(name, s.adopt)}
	if *address != "" {
		opts = append(opts, framework.Listen("tcp", *address, listener.Name(name)))
	}
	err := framework.Serve(s.serve, opts...)
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

// server is made in every process, but its methods are called in workers only.
type server struct {
	ctx context.Context
}

func (s *server) serve(ctx context.Context, ls framework.Listeners) error {
	s.ctx = ctx
	for {
		c, err := ls.Get(name).Accept()
		if err != nil {
			return err // the drain; sessions are waited for
		}
		go s.session(c, 0)
	}
}

// adopt goes on with a session of an older worker. Its state was written by
// another release, so keep the format readable for the one before and after.
func (s *server) adopt(c net.Conn, state []byte) {
	lines, _ := strconv.Atoi(string(state))
	s.session(c, lines)
}

// session is a conversation in which so many lines have been answered.
func (s *server) session(c net.Conn, lines int) {
	defer c.Close()
	// Most of the time it waits for a line: the drain has to wake it.
	defer framework.OnDrain(s.ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
	in := bufio.NewReaderSize(c, framework.MaxHandoffUnread)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// What there is of the next line, all that has been read, goes along.
			if err := framework.Handoff(c, line, []byte(strconv.Itoa(lines))); err != nil {
				fmt.Fprintf(c, "bye: %v\n", err)
			}
			return
		}
		if err != nil {
			return
		}
		lines++
		if _, err := fmt.Fprintf(c, "%s: %d %s", framework.WorkerID(), lines, line); err != nil {
			return
		}
	}
}
