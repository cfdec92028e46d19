package workers

import (
	"fmt"
	"os"
)

// execPath is the path that executes the pinned file, which the child has at
// descriptor fd. The child looks it up as itself: it may be another user by
// then, who must not look into the master.
func (b *Binary) execPath(fd int) string {
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d", b.file.Fd())); err != nil {
		return b.Path // no /proc: the path has to do
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}
