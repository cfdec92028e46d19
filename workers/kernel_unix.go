//go:build unix

package workers

import "errors"

// errNoKernel: nothing here gives each worker a socket of its own.
var errNoKernel = errors.New("this build has no kernel mode")

// byKernel says why connections of our listener at cannot be accepted in kernel
// mode, nil if they can.
func (p *Pool) byKernel(at int) error { return errNoKernel }
