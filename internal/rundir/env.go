package rundir

import "strings"

// FromEnv is the first directory of $RUNTIME_DIRECTORY, which systemd sets for a
// unit with RuntimeDirectory=, for its ExecReload= too; "" if there is none.
func FromEnv(getenv func(string) string) string {
	first, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":")
	return first
}
