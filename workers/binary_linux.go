package workers

import (
	"fmt"
	"os"
)

// execPath is the path to execute. The magic link is looked up by pid and not
// by /proc/self, because the child moves file descriptors before it executes
// and may have put another file at that number.
func (b *Binary) execPath() string {
	link := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd())
	if _, err := os.Stat(link); err != nil {
		return b.Path // no /proc: the path has to do
	}
	return link
}
