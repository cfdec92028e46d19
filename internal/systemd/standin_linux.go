package systemd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// standInEnv makes a process a stand-in, for the process whose pid it holds.
const standInEnv = "_BATON_STAND_IN"

// standInTime bounds its life.
const standInTime = 10 * time.Second

func init() {
	pid, err := strconv.Atoi(os.Getenv(standInEnv))
	if err != nil {
		return
	}
	time.AfterFunc(standInTime, func() { os.Exit(1) })
	_, _ = io.Copy(io.Discard, os.Stdin)
	n := NewNotifier(os.Getenv("NOTIFY_SOCKET"))
	if n.Notify(MainPID(pid)) != nil || n.Barrier(standInTime) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// Reclaim makes systemd look again whose child this process is. It looks when a
// process becomes the main one; while our predecessor lived we were its child,
// and such a process systemd does not wait for: with KillMode=process it would
// send SIGKILL right after SIGTERM. Now that the predecessor is gone we are
// systemd's.
//
// The main process must change for that, so another one stands in for a moment.
// It has to hand back itself: with NotifyAccess=main only the main process is
// listened to.
func (n *Notifier) Reclaim(ctx context.Context) error {
	if n == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, standInTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = []string{"NOTIFY_SOCKET=" + n.addr.Name, standInEnv + "=" + strconv.Itoa(os.Getpid()), "GORACE=atexit_sleep_ms=0"}
	start, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	err = n.Notify(MainPID(cmd.Process.Pid))
	start.Close() // its turn
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("stand-in: %w", werr)
	}
	// Whatever became of it: to a systemd that listens to all of us.
	if nerr := n.Notify(MainPID(os.Getpid())); err == nil {
		err = nerr
	}
	return err
}
