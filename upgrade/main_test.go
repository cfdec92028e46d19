//go:build unix

package upgrade

import (
	"os"
	"testing"

	"github.com/baton-go/baton/internal/leaktest"
)

func TestMain(m *testing.M) {
	if os.Getenv(taskEnv) != "" {
		os.Exit(runTask())
	}
	os.Exit(leaktest.Main(m))
}
