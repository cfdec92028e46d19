//go:build linux

package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

const servers = "github.com/baton-go/baton/integration/peers/servers/"

// Build builds the servers of these names, which are written in Go, to a new
// directory.
func Build(ctx context.Context, bin string, names ...string) error {
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	args := []string{"build", "-o", bin + "/"}
	for _, name := range names {
		args = append(args, servers+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.SysProcAttr = Apart()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the servers: %w\n%s", err, out)
	}
	return nil
}
