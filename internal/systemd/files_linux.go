package systemd

import (
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Files returns the files that systemd passed to this process, each with the
// name that it has for systemd, and takes the variables that tell of them out of
// the environment: a child has no such files. nil if there are none, or if
// another process is meant.
func Files() []*os.File {
	id := os.Getenv("LISTEN_PIDFDID")
	os.Unsetenv("LISTEN_PIDFDID")
	if id != "" && !isOwnPIDFD(id) {
		os.Unsetenv("LISTEN_PID") // then none is returned, and the others go, too
	}
	return activation.Files(true)
}

// pidfs is the file system of pidfds since Linux 6.9. Before, all of them have
// one inode number, and say nothing.
const pidfs = 0x50494446

// isOwnPIDFD says whether id can be the inode number of this process' pidfd. Of
// processes with one pid, which comes back, each has its own.
func isOwnPIDFD(id string) bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || int64(fs.Type) != pidfs || unix.Fstat(fd, &st) != nil {
		return true // this kernel cannot tell
	}
	return id == strconv.FormatUint(st.Ino, 10)
}
