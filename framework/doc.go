// Package framework runs an HTTP application, or any server on a net.Listener,
// as a master process and several workers, and deploys new builds of it without
// losing a request.
//
// # Using it
//
// main wraps what it has in Run:
//
//	func main() {
//		err := framework.RunFunc(build)
//		if err != nil {
//			log.Print(err)
//		}
//		os.Exit(framework.ExitCode(err))
//	}
//
//	// build is called in workers only.
//	func build(ctx context.Context) (http.Handler, error) {
//		db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
//		if err != nil {
//			return nil, err // refuses the release; the one before goes on
//		}
//		framework.OnStop(ctx, func(context.Context) error { return db.Close() })
//		return newApplication(db), nil
//	}
//
// A deploy puts the new binary in the place of the old one, by mv, and sends
// HUP to the master:
//
//	mv app.new app && kill -HUP $(cat app.pid)    # with PIDFile("app.pid")
//	mv app.new app && batonctl reload             # the same, and waits for the verdict
//
// Run is for an application that has nothing to open, RunFunc for one that has,
// Serve for servers of other protocols than HTTP. All return when the service
// has stopped: nil after a stop that was asked for.
//
// # Roles
//
// The same binary is all of the processes, and main up to Run is executed in
// each of them. Role, WorkerID, Generation and Slot tell them apart, and
// LogAttrs puts that into a log.
//
// The master owns the listeners. It accepts connections and gives each, unread,
// to a worker; it calls no handler. Workers build the application and serve. A
// generation is all workers of one release: on HUP a new one is started from the
// binary on disk and takes over once every one of its workers is ready.
// Otherwise it is refused, with the reason, and no client notices. The old
// generation drains: requests in flight are answered, idle HTTP/1 connections
// move to the new one without their clients noticing, what cannot move is served
// until it has been told to close, and only what is left at DrainTimeout is cut,
// counted and logged.
//
// Connections of other protocols, WebSockets for instance, move when the
// application hands them off at the boundary of a message: see Handoff, OnAdopt
// and OnDrain.
//
// Which worker gets a connection is a policy's choice, see Dispatch, unless workers
// accept for themselves, see Accept.
//
// A release that changes what belongs to the master, its listeners for instance,
// makes an upgrade of the reload: a new master takes the listeners and the living
// workers over.
//
// Where the service is supervised, workers outlive a master that is killed, and
// accept for themselves until another one adopts and replaces them; see
// OrphanTimeout.
//
// In PID 1, a container's entry point, Run is an init, which starts the master,
// passes signals on to it, follows it through upgrades, and starts another when
// one is killed. It ends with the master's exit status.
//
// SingleProcess, or BATON_MODE=single, serves in one process with the same API
// and the same drain, for debuggers and Windows; package frameworktest does so in
// a test.
//
// # Signals
//
// To the master:
//
//	HUP         a new generation from the binary on disk
//	USR2        the same, and a new master too
//	TERM, INT   StopDelay, then accept what is queued, drain, exit 0
//	            a second one: stop now
//	TTIN, TTOU  one worker more, one fewer; kept by later HUP and USR2
//	USR1        passed on to the workers
//	QUIT        goroutine dump, as in any Go program
//
// To a worker, TERM drains it once the master has started another in its place.
//
// # Options and environment
//
// Options are given to Run. Each scalar one has a variable BATON_*, named in its
// documentation, that wins over the code, and the log says so at the start. What
// is wrong with options and variables is reported in one error, ErrConfig, before
// anything is bound or started; so is a limit of file descriptors with which the
// master could not work. Type Option says which of them a new release brings
// along with a HUP.
package framework
