package framework

import "errors"

// What Run and its kin return, beside the errors of the application and of the
// operating system. Match them with errors.Is.
var (
	// ErrConfig: an option or a variable of the environment is not usable, or
	// RLIMIT_NOFILE is too low for them. The text lists every problem, one a
	// line. Nothing was bound or forked.
	ErrConfig = errors.New("baton: invalid configuration")

	// ErrAlreadyRunning: another live master holds the runtime directory.
	ErrAlreadyRunning = errors.New("baton: already running")

	// ErrIncompatible: the workers that a killed master has left serve on, and
	// this release cannot take them over. The text says what each speaks. The
	// release that they are of can, or one between; so can this one when they
	// have left, see OrphanTimeout.
	ErrIncompatible = errors.New("baton: workers of another release serve")

	// ErrNotReady: a generation did not become ready. The text says which of
	// its workers failed, how, and what it last wrote to its stderr.
	ErrNotReady = errors.New("baton: not ready")

	// ErrInTest: Run was called inside a test binary, which must not be forked
	// as if it were the application. Give SingleProcess, or use package
	// frameworktest.
	ErrInTest = errors.New("baton: running inside a test binary")
)

// The exit codes, named as in sysexits.h, which service managers know:
// systemd's RestartPreventExitStatus=78 stops a unit from being restarted for
// a configuration that cannot become right by itself.
const (
	exitTempFail = 75 // EX_TEMPFAIL: try again later
	exitConfig   = 78 // EX_CONFIG: something is configured wrongly
)

// ExitCode is the exit status that fits an error of Run:
//
//	nil                 0   EX_OK
//	ErrConfig          78   EX_CONFIG
//	ErrAlreadyRunning  75   EX_TEMPFAIL
//	ErrIncompatible    75   EX_TEMPFAIL
//	any other           1
//
// Use it as os.Exit(framework.ExitCode(framework.Run(handler))).
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrConfig):
		return exitConfig
	case errors.Is(err, ErrAlreadyRunning), errors.Is(err, ErrIncompatible):
		return exitTempFail
	}
	return 1
}
