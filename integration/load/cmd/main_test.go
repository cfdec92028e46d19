package main

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/baton-go/baton/integration/load"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	good := &http.Server{Handler: load.Handler("w")}
	defer good.Close()
	go good.Serve(l)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()

	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"-addr " + l.Addr().String() + " -duration 200ms -per-conn 1 -keep-alive 2 -pipelined 1", 0, " 0 lost", ""},
		{"-addr " + gone.Addr().String() + " -duration 50ms -per-conn 1", 1, "per-conn: connect: ", ""},
		{"-addr " + l.Addr().String(), 2, "", "no clients"},
		{"-per-conn 1", 2, "", "-addr is missing"},
		{"-addr x -per-conn 1 more", 2, "", `unexpected argument "more"`},
		{"-what", 2, "", "not defined"},
		{"-h", 0, "", "-keep-alive"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%s: have %d, want %d\n%s%s", c.args, code, c.code, &stdout, &stderr)
		}
	}
}
