package upgrade

import "golang.org/x/sys/unix"

// dup2 is dup2, which Linux does not have on all architectures.
func dup2(from, to int) error { return unix.Dup3(from, to, 0) }
