//go:build unix

package workers

import (
	"os"
	"testing"

	"github.com/baton-go/baton/internal/leaktest"
)

// taskEnv makes the test binary run as another process with a task of its own.
const taskEnv = "WORKERS_TEST_TASK"

func TestMain(m *testing.M) {
	if task := os.Getenv(taskEnv); task != "" {
		os.Exit(runTask(task))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // for the processes that tests start
	os.Exit(leaktest.Main(m))
}
