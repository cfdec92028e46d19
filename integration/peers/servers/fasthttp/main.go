//go:build unix

// Fasthttp is fasthttp with its prefork, as its documentation has it: a process
// for each CPU, which accepts from a listener that all of them have.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/baton-go/baton/integration/peers/tiny"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/prefork"
)

func main() {
	// prefork passes the arguments on to its children.
	addr := flag.String("addr", "", "`address` to listen on")
	file := flag.String("tiny", "", "`path` of the file to answer with")
	flag.Parse()
	server := &fasthttp.Server{
		Handler:               handler(tiny.ID(strconv.Itoa(os.Getpid())), *file),
		NoDefaultServerHeader: true, // the others have none
	}
	if prefork.IsChild() {
		// Who has started this counts these lines.
		fmt.Fprintln(os.Stderr, "worker", os.Getpid())
	}
	log.Fatal(prefork.New(server).ListenAndServe(*addr))
}

// handler is tiny.Handler.
func handler(id, file string) fasthttp.RequestHandler {
	hello, mib := []byte("ok\n"), tiny.Body()
	return func(c *fasthttp.RequestCtx) {
		c.Response.Header.Set(tiny.Worker, id)
		c.SetContentType("text/plain; charset=utf-8")
		switch string(c.Path()) {
		case tiny.Hello:
			c.SetBody(hello)
		case tiny.MiB:
			c.Response.SetBodyRaw(mib)
		case tiny.File:
			answerFile(c, file)
		default:
			c.SetStatusCode(fasthttp.StatusNotFound)
		}
	}
}

func answerFile(c *fasthttp.RequestCtx, path string) {
	f, err := os.Open(path)
	if err != nil {
		c.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		c.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	c.SetBodyStream(f, int(info.Size())) // which closes it
}
