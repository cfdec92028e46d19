package framework

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/workers"
)

// Option is a choice made in code. Where an option has a variable of the
// environment, a non-empty variable wins over the code, and the master logs
// that it did. When a scalar option is given twice, the last one counts.
//
// Options of a generation (Workers, the timeouts, Dispatch) are in force
// from the moment that the generation serves, so a new binary brings its own
// with one HUP. Options of the master (Listen, RuntimeDir, PIDFile, User, EnvFile)
// need a new master: where a new binary changes one, the HUP becomes an
// upgrade.
//
// Bad options never panic. Run reports all of them together, as ErrConfig.
type Option func(*options)

// Listen adds a listener. May be repeated; each listener needs a name and an
// address of its own. The name is "network:address" unless listener.Name says
// otherwise.
//
// network is tcp, tcp4, tcp6 or unix; addr is as for net.Listen.
//
// Without Listen there is one listener, named "default", on tcp ":8080", or on
// tcp ":$PORT" where the variable PORT is set; port 0 lets the system choose.
func Listen(network, addr string, o ...listener.Option) Option {
	return func(opts *options) {
		given := make([]listener.Option, 0, len(o))
		for i, f := range o {
			if f == nil {
				opts.problem("Listen(%q, %q): option %d is nil: expected a listener.Option", network, addr, i+1)
				continue
			}
			given = append(given, f)
		}
		opts.Listeners = append(opts.Listeners, listener.NewSpec(network, addr, given...))
	}
}

// Handle serves the connections of one listener with a handler of its own;
// the listeners not named by any Handle are served by the handler of Run. May
// be repeated, once for each listener.
func Handle(listenerName string, h http.Handler) Option {
	return func(o *options) {
		if isNilHandler(h) {
			o.problem("Handle(%q, nil): expected a handler", listenerName)
			return
		}
		if _, twice := o.handlers[listenerName]; twice {
			o.problem("Handle(%q): given twice, expected one handler for a listener", listenerName)
			return
		}
		o.handlers[listenerName] = h
	}
}

// OnAdopt has f called with each connection of that listener that a worker has
// given to [Handoff], and with its state: in a worker of the serving generation,
// on a goroutine of its own. What was unread there is what Read yields first; no
// deadline is set. f owns the connection, which counts as open, in a drain too,
// until f or whoever it is passed to closes it or hands it off in its turn.
//
// f is called when the worker is ready, and so after build has returned: an f
// that needs what build makes is a method of a value that both can reach.
// Contexts are those of build or Serve. May be repeated, once for each listener;
// the one that there is without Listen is called "default".
//
// Default: nothing is adopted from the listener, and Handoff says so.
func OnAdopt(listenerName string, f func(c net.Conn, state []byte)) Option {
	return func(o *options) {
		if f == nil {
			o.problem("OnAdopt(%q, nil): expected a function", listenerName)
			return
		}
		if _, twice := o.adopters[listenerName]; twice {
			o.problem("OnAdopt(%q): given twice, expected one function for a listener", listenerName)
			return
		}
		o.adopters[listenerName] = f
	}
}

// NoMove keeps the idle HTTP/1 connections of these listeners from moving to
// the next generation. They are served on during the drain and told to close
// with their next answer, or closed when they have been idle for IdleGrace.
// May be repeated.
//
// That is for an application that keeps something about a connection which
// nobody can build again elsewhere: the state of an authentication that covers
// the connection and not the request, as NTLM does, or what ConnContext found
// out when it was called for a new connection. Of one that moves, the next
// worker calls it again.
//
// Default: connections move.
func NoMove(listenerNames ...string) Option {
	return func(o *options) {
		if len(listenerNames) == 0 {
			o.problem("NoMove(): expected the name of a listener")
			return
		}
		o.noMove = append(o.noMove, listenerNames...)
	}
}

// isNilHandler also finds the nils that hide in an interface and would panic
// at the first request only. Other nil pointers can be handlers in earnest.
func isNilHandler(h http.Handler) bool {
	switch h := h.(type) {
	case nil:
		return true
	case http.HandlerFunc:
		return h == nil
	case *http.ServeMux:
		return h == nil
	}
	return false
}

// Workers is the number of worker processes, from 0 to 1024.
//
// Default 0: one per CPU that the process may use, where a CPU quota of its
// cgroup counts too. Variable BATON_WORKERS.
func Workers(n int) Option { return workersVar.code(n) }

// DrainTimeout bounds the life of a generation after a newer one has taken
// over. What it still has open then is cut, counted and logged. From 0 to
// 720 hours; hours are right for long downloads and streams.
//
// Default 30 s. Variable BATON_DRAIN_TIMEOUT. Zero cuts at once.
func DrainTimeout(d time.Duration) Option { return drainTimeoutVar.code(d) }

// StopTimeout bounds the whole stop after TERM or INT, StopDelay included.
// What is open then is cut, counted and logged. Keep it below the patience of
// the service manager, such as terminationGracePeriodSeconds or
// TimeoutStopSec. From 0 to 720 hours.
//
// Default 25 s. Variable BATON_STOP_TIMEOUT. Zero cuts at once.
func StopTimeout(d time.Duration) Option { return stopTimeoutVar.code(d) }

// StopDelay goes on accepting and serving for so long after TERM, while
// readiness already fails, so that a load balancer can turn away before the
// listeners close. Must be shorter than StopTimeout.
//
// Default 0: stop accepting at once. Variable BATON_STOP_DELAY.
func StopDelay(d time.Duration) Option { return stopDelayVar.code(d) }

// ReadyTimeout is how long the workers of a new generation may take to become
// ready, building included, before the generation is refused. Above 0, up to
// 720 hours.
//
// Default 30 s. Variable BATON_READY_TIMEOUT. Zero is not allowed: a wait that
// never ends would block every later deploy.
func ReadyTimeout(d time.Duration) Option { return readyTimeoutVar.code(d) }

// KillTimeout is how long a worker may take to leave once its connections are
// finished or cut, the functions of OnStop included, before it is sent
// SIGKILL. From 0 to 720 hours.
//
// Default 5 s. Variable BATON_KILL_TIMEOUT. Zero kills at once and leaves
// OnStop no time.
func KillTimeout(d time.Duration) Option { return killTimeoutVar.code(d) }

// HangTimeout is how long a worker may take no notice of its master, or leave a
// connection that it was sent unaccepted, before its goroutines are dumped and,
// a second later, it is killed and replaced. It gets no connections long before
// that, after one second. From 0 to 720 hours.
//
// A Serve function that accepts no more than a limit of connections at a time
// should have a longer one, or none.
//
// Default 30 s. Variable BATON_HANG_TIMEOUT. Zero never kills, which suits a
// debugger.
func HangTimeout(d time.Duration) Option { return hangTimeoutVar.code(d) }

// GiveUpAfter ends the service with an error when no worker at all has been
// ready for so long, although workers were started again and again. From 0 to
// 720 hours.
//
// Default 0: never give up; connections wait in the queue of the kernel until
// a worker comes back. Variable BATON_GIVE_UP_AFTER.
func GiveUpAfter(d time.Duration) Option { return giveUpAfterVar.code(d) }

// BakeTime is how long a generation counts as young once it serves. If its
// workers die too often while it is, three times or as often as half of them,
// whichever is more, the master goes back to the release that served before,
// which stays pinned. From 0 to 720 hours.
//
// Default 10 s. Variable BATON_BAKE_TIME. Zero never goes back by itself; an
// operator can, by batonctl rollback.
func BakeTime(d time.Duration) Option { return bakeTimeVar.code(d) }

// OrphanTimeout is how long workers go on when their master has been killed:
// they serve, and accept for themselves, until another master comes, adopts them
// and replaces them as in a reload. If none comes in time they drain and leave,
// and earlier when they are told to, or when systemd stops the unit or gives it
// up. From 0 to 720 hours.
//
// Default 5 minutes where somebody starts the master again: a service manager
// that sets NOTIFY_SOCKET, or the init of a container. Elsewhere 0: they drain
// and leave at once, and the port is free. Variable BATON_ORPHAN_TIMEOUT. On Linux
// only, and with User only with Orphans.
func OrphanTimeout(d time.Duration) Option { return orphanTimeoutVar.code(d) }

// Orphans lets workers that run as another User go on, too, when their master has
// been killed, for OrphanTimeout. To that end they hold copies of the listeners,
// and a copy is no less than the original: a worker that somebody has taken over
// can end the listening for the whole service, and for every service that shares
// the socket. Without it no worker of another user ever has a listener.
//
// That user must be able to search the runtime directory, which is made so if Baton
// makes it; nobody but root can do more in it.
//
// Default false. Variable BATON_ORPHANS. Without User, workers hold listeners where
// OrphanTimeout is not 0, whatever this says.
func Orphans(yes bool) Option { return orphansVar.code(yes) }

// IdleGrace is how long a draining worker keeps an idle HTTP/1 connection that
// it cannot hand on, so that a client about to write its next request is still
// answered, with "Connection: close". HTTP/2 has GOAWAY for that, and does not
// wait for the grace. From 0 to 720 hours; DrainTimeout and StopTimeout cut it
// short.
//
// Default 5 s. Variable BATON_IDLE_GRACE. Zero closes idle connections at
// once, and loses the requests that were on their way.
func IdleGrace(d time.Duration) Option { return idleGraceVar.code(d) }

// DrainSpread is the time over which a draining worker tells the connections
// whose requests wait for Draining, such as WebSockets and event streams: one
// each 10 ms, or faster where there are so many that it would take longer. Half
// of DrainTimeout or StopTimeout cuts it short. From 0 to 720 hours.
//
// Default 5 s. Variable BATON_DRAIN_SPREAD. Zero tells all at once, and their
// clients come back all at once.
func DrainSpread(d time.Duration) Option { return drainSpreadVar.code(d) }

// MaxDraining is how many older generations may drain at the same time; beyond
// that the oldest is cut. From 1 to 256. Each holds its memory and its
// connections, so it bounds what frequent deploys can pile up.
//
// Default 8. Variable BATON_MAX_DRAINING. Zero is not allowed: give
// DrainTimeout(0) to cut at once.
func MaxDraining(n int) Option { return maxDrainingVar.code(n) }

// Preempt has workers take the CPU from others as soon as they have something to
// do, as processes usually do. Without it they wait, as the master does, until who
// runs there has used its turn or sleeps, some milliseconds at most, and then find
// several requests at a time (SCHED_BATCH, see sched(7)): on CPUs that are all busy
// that serves many more connections. On a CPU that is idle they run at once in
// either case. What an application starts inherits it.
//
// It is for services whose machine is kept busy by others, and whose latency
// matters more than what they can serve. Another scheduling policy than the
// default one, given to the service from outside, is left alone.
//
// Default false. Variable BATON_PREEMPT, true or false. Linux only: elsewhere all
// processes preempt.
func Preempt(on bool) Option { return preemptVar.code(on) }

// Rolling makes a new generation replace the old one worker by worker, for
// machines whose memory does not hold both: there is never more than one worker
// above what there are otherwise. Once the first of the new ones is ready, both
// generations serve; an old worker drains, and when it has gone another new one
// starts. Should one of them fail meanwhile, the release is refused, and the way is
// gone back in the same steps.
//
// A deploy takes as long as its drains do, one after the other: mind DrainTimeout
// where there are long requests. The verdict of a reload comes at its end, that of
// an upgrade when the new master has taken over.
//
// Default false: all new workers are ready before the first connection goes to
// one of them. Variable BATON_ROLLING, true or false.
func Rolling(on bool) Option { return rollingVar.code(on) }

// PIDFile is a file that holds the master's process id while it runs; an
// upgrade rewrites it. A relative path counts from the first working
// directory.
//
// The directory must exist and be writable for the master, or the start is
// refused.
//
// Default "": none. Variable BATON_PID_FILE.
func PIDFile(path string) Option { return pidFileVar.code(path) }

// User is the user that the workers run as, by name or number, with its groups,
// and without a way to gain privileges (no_new_privs on Linux): the master
// stays what it is, root as a rule, and holds the listeners. USER, LOGNAME and
// HOME are set for it, unless EnvFile sets them.
//
// All that a worker opens by itself must be accessible to that user, its working
// directory and certificate files among it; the executable needs no more than to
// be executable. Without root it can only be the user who starts the service.
//
// Default "": the master's own. Variable BATON_USER. It has no effect with
// SingleProcess, which logs a warning.
func User(name string) Option { return userVar.code(name) }

// RuntimeDir is the directory of the control socket and of the lock that keeps
// a second master out. It is made if need be, for its owner alone. A relative
// path counts from the first working directory.
//
// Default "": the first of $RUNTIME_DIRECTORY, then a directory made of the
// program's name and its listeners in $XDG_RUNTIME_DIR/baton, /run/baton (for
// root) or the directory for temporary files. Variable BATON_RUNTIME_DIR.
func RuntimeDir(path string) Option { return runtimeDirVar.code(path) }

// EnvFile is a file of NAME=value lines that is read anew for each generation,
// so that a HUP takes new settings. Its values win over the inherited
// environment, for the workers and for the BATON_* variables alike. A file
// that is missing or bad refuses the start or the reload. A relative path
// counts from the first working directory.
//
// Values may be quoted; ${NAME} is replaced from lines above in the same file,
// never from the environment, and by nothing where the file does not define
// it; single quotes keep it as it is. Names that begin with _BATON_,
// TABLEFLIP_, LISTEN_ or NOTIFY_SOCKET, and BATON_ENV_FILE itself, are refused.
//
// Default "": none. Variable BATON_ENV_FILE.
func EnvFile(path string) Option { return envFileVar.code(path) }

// Logger gets the log records of the master and of the workers' own machinery:
// a few lines a deploy, none a connection.
//
// Default slog.Default, as it is when Run is called. To silence it give
// slog.New(slog.DiscardHandler).
func Logger(l *slog.Logger) Option {
	return func(o *options) {
		if l == nil {
			o.problem("Logger(nil): expected a logger, such as slog.New(slog.DiscardHandler) for silence")
			return
		}
		o.logger = l
	}
}

// HTTPServer changes the http.Server of each listener before it serves: its
// timeouts, limits, ErrorLog. ConnState, ConnContext and BaseContext are
// called along with the framework's own; the handler, Addr and the listener
// are the framework's. Called in workers only, once for each listener. May be
// repeated; the functions are called in the order given.
//
// Default: ReadHeaderTimeout 10 s, IdleTimeout 120 s, the rest as in net/http.
func HTTPServer(f func(*http.Server)) Option {
	return func(o *options) {
		if f == nil {
			o.problem("HTTPServer(nil): expected a function")
			return
		}
		o.httpServer = append(o.httpServer, f)
	}
}

// SingleProcess serves in the calling process, without master and workers: for
// debuggers, IDEs, tests, and on Windows. The API and the drain are the same;
// there are no reloads and no upgrades.
//
// Default: a master and its workers. Variable BATON_MODE: single or master.
func SingleProcess() Option { return modeVar.code(true) }

// StopOn stops the service, as TERM does, once ctx is done. May be repeated;
// any of the contexts stops it. Only the master, or the single process, looks
// at it.
//
// Default: only signals and the control socket stop the service.
func StopOn(ctx context.Context) Option {
	return func(o *options) {
		if ctx == nil {
			o.problem("StopOn(nil): expected a context")
			return
		}
		o.stopOn = append(o.stopOn, ctx)
	}
}

// OnEvent is called in the master for each event of its workers and
// generations, in order, from one goroutine. A slow function delays later
// events but not the service. May be repeated.
//
// Default: none. Events are logged in any case.
func OnEvent(f func(workers.Event)) Option {
	return func(o *options) {
		if f == nil {
			o.problem("OnEvent(nil): expected a function")
			return
		}
		o.onEvent = append(o.onEvent, f)
	}
}

// OnListen is called in the master, or in the single process, with each
// listener's name and the address it is bound to, before the first connection
// is accepted: the way to learn the port behind ":0". May be repeated.
//
// Default: none. Addresses are logged in any case.
func OnListen(f func(name string, a net.Addr)) Option {
	return func(o *options) {
		if f == nil {
			o.problem("OnListen(nil): expected a function")
			return
		}
		o.onListen = append(o.onListen, f)
	}
}

// problem records one line of the error that resolve returns.
func (o *options) problem(format string, args ...any) {
	o.problems = append(o.problems, fmt.Sprintf(format, args...))
}
