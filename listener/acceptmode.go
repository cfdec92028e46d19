package listener

// AcceptMode says who takes the connections of a listener from the kernel.
type AcceptMode string

// The accept modes. What each of them costs and gives is told in the README.
const (
	// AcceptByMaster: the master accepts, and sends each connection to the worker
	// that a policy picks. The default.
	AcceptByMaster AcceptMode = "master"
	// AcceptByWorkers: the workers accept from the master's socket, all from one
	// queue, and no policy is asked.
	AcceptByWorkers AcceptMode = "workers"
	// AcceptByKernel: the kernel gives each worker connections of its own, in
	// turn. Where it cannot, the mode is AcceptByMaster, and it is said why.
	AcceptByKernel AcceptMode = "kernel"
	// AcceptOnlyByKernel is AcceptByKernel, but a release is refused where the
	// kernel cannot.
	AcceptOnlyByKernel AcceptMode = "kernel!"
)

// AcceptModes is what Valid takes, in words.
const AcceptModes = "master, workers, kernel or kernel!"

// Valid says whether there is such a mode.
func (m AcceptMode) Valid() bool {
	switch m {
	case AcceptByMaster, AcceptByWorkers, AcceptByKernel, AcceptOnlyByKernel:
		return true
	}
	return false
}

// Accept sets the accept mode of one listener, whatever that of the others is.
// "" leaves it that of the others.
func Accept(mode AcceptMode) Option {
	return func(s *Spec) { s.Accept = mode }
}
