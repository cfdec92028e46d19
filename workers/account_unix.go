//go:build unix

package workers

import "syscall"

// credential is what the child becomes before it executes anything.
func (a *Account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
}
