// Command batonctl asks a running service for its status and tells it to
// reload, upgrade, roll back, scale, weight or stop, over the control socket in its runtime
// directory.
//
//	batonctl [--socket PATH | --runtime-dir DIR] [--timeout 60s] COMMAND
//
//	status [--json] [--watch[=1s]]   show generations and workers
//	reload                           replace the workers
//	upgrade                          replace the master and the workers
//	rollback                         back to the release that served before
//	scale N|+N|-N                    change the number of workers
//	weight SLOT=W...                 change shares of the connections, where the
//	                                 dispatch policy has weights
//	stop [--now]                     drain and end, or end at once
//
// The service is found by --socket, --runtime-dir, $RUNTIME_DIRECTORY (which
// systemd sets for ExecReload=), or by looking into the default places, where
// exactly one service must answer.
//
// All but status return when the service has decided, however long that takes, unless --timeout says otherwise; status waits for 10 s at
// most. A timeout of 0 is none. Giving up the wait, by a timeout or Ctrl-C, does
// not undo what was asked for.
//
// stop also ends the workers that go on because their master was killed.
//
// Exit codes:
//
//	0  done
//	1  refused or failed: the reason, and what the refused candidate wrote to
//	   its stderr, are on stderr
//	2  usage; also if several services answer and none was chosen
//	3  no service reached
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"github.com/baton-go/baton/internal/control"
	"github.com/baton-go/baton/internal/rundir"
)

const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2
	exitNoService = 3
)

const description = `Control a running service.

Exit codes: 0 done; 1 refused or failed, with the reason and the stderr of the
refused candidate on stderr; 2 usage; 3 no service reached.`

// cli is the command line.
type cli struct {
	Socket     string         `help:"Control socket of the service." placeholder:"PATH" xor:"where"`
	RuntimeDir string         `help:"Runtime directory of the service. Default: $$RUNTIME_DIRECTORY, else the only service found in the default places." placeholder:"DIR" xor:"where"`
	Timeout    *time.Duration `help:"Longest wait for an answer, 0 for no limit. Default: 10s for status, no limit for the others." placeholder:"60s"`

	Status   statusCmd   `cmd:"" help:"Show the state, the generations and the workers."`
	Reload   reloadCmd   `cmd:"" help:"Replace the workers by the binary on disk; the master stays."`
	Upgrade  upgradeCmd  `cmd:"" help:"Replace the master and the workers by the binary on disk."`
	Rollback rollbackCmd `cmd:"" help:"Go back to the workers of the release that served before."`
	Scale    scaleCmd    `cmd:"" help:"Change the number of workers."`
	Weight   weightCmd   `cmd:"" help:"Change the weights of slots, until the next generation serves."`
	Stop     stopCmd     `cmd:"" help:"Drain and end the service."`
}

// failure is an error with the exit code it leads to.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// env is what a command needs of the world.
type env struct {
	client  *control.Client
	dir     string // the runtime directory; "": only the socket is known
	timeout *time.Duration
	stdout  io.Writer
	stderr  io.Writer
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("batonctl"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		return report(stderr, err)
	}
	kctx, err := parser.Parse(negativeLast(args))
	if err == nil && c.Timeout != nil && *c.Timeout < 0 {
		err = fmt.Errorf("--timeout: %v, expected 0 or more", *c.Timeout)
	}
	if err != nil {
		return report(stderr, &failure{exitUsage, fmt.Errorf("%w; see batonctl --help", err)})
	}
	socket, err := findSocket(c.Socket, c.RuntimeDir, os.Getenv)
	if err != nil {
		return report(stderr, err)
	}
	e := &env{client: control.NewClient(socket), timeout: c.Timeout, stdout: stdout, stderr: stderr}
	if filepath.Base(socket) == filepath.Base(rundir.SocketPath("")) {
		e.dir = filepath.Dir(socket)
	}
	err = kctx.Run(e)
	if errors.Is(err, control.ErrNoService) && e.dir != "" {
		if hint := left(e.dir); hint != "" {
			err = fmt.Errorf("%w%s", err, hint)
		}
	}
	return report(stderr, err)
}

// report prints err, if there is one, and gives the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "batonctl: %v\n", err)
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, control.ErrNoService):
		return exitNoService
	}
	return exitFailed
}
