//go:build unix

package listener

import (
	"fmt"
	"os"
	"testing"

	"github.com/baton-go/baton/internal/leaktest"
)

// childEnv makes the test binary run as a child with a task of its own.
const childEnv = "LISTENER_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "group" {
		fmt.Println(GroupSupported())
		os.Exit(0)
	}
	if os.Getenv(childEnv) == "fdlimit" {
		if err := runAtFDLimit(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaktest.Main(m))
}
