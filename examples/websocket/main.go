// Websocket counts the messages of each session. Deploys do not end sessions:
// the WebSocket moves to the new release, and the count goes on.
//
//	go build -o /tmp/websocket ./examples/websocket && /tmp/websocket -listen localhost:8080
//	                              # open http://localhost:8080 in a browser
//	pkill -HUP -o -x websocket    # the worker's name changes, the count does not
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/gobwas/ws"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/listener"
)

const name = "default" // of the listener

//go:embed page.html
var page []byte

func main() {
	address := flag.String("listen", "", `address, such as "localhost:8080" (default ":$PORT", or ":8080")`)
	flag.Parse()
	a := &application{}
	opts := []framework.Option{framework.OnAdopt(name, a.adopt)}
	if *address != "" {
		opts = append(opts, framework.Listen("tcp", *address, listener.Name(name)))
	}
	err := framework.RunFunc(a.build, opts...)
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

// application is made in every process, but its methods are called in workers
// only.
type application struct {
	ctx context.Context
}

func (a *application) build(ctx context.Context) (http.Handler, error) {
	a.ctx = ctx
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	mux.HandleFunc("GET /ws", a.upgrade)
	return mux, nil
}

// upgrade begins a session. An application with cookies looks at Origin first.
func (a *application) upgrade(w http.ResponseWriter, r *http.Request) {
	c, rw, _, err := ws.UpgradeHTTP(r, w)
	if c == nil {
		return // it has been answered
	}
	defer c.Close()
	if err != nil {
		return
	}
	early, _ := rw.Peek(rw.Reader.Buffered()) // sent before our answer
	s := session{ctx: a.ctx}
	s.run(c, early)
}

// adopt goes on with a session of an older worker. Its state was written by
// another release, so keep the format readable for the one before and after.
func (a *application) adopt(c net.Conn, state []byte) {
	defer c.Close()
	s := session{ctx: a.ctx}
	if json.Unmarshal(state, &s) == nil {
		s.run(c, nil)
	}
}
