package systemd

import (
	"os"
	"testing"

	"github.com/baton-go/baton/internal/leaktest"
)

func TestMain(m *testing.M) {
	if os.Getenv(taskEnv) != "" {
		tellFiles()
		return
	}
	os.Exit(leaktest.Main(m))
}
