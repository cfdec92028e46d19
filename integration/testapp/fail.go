//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/integration/testapp/config"
)

// failure is how this process is to fail, "" if not at all.
func failure(cfg config.Config) string {
	if cfg.FailIf != "" {
		if _, err := os.Stat(cfg.FailIf); err != nil {
			return ""
		}
	}
	if fail, masters := strings.CutPrefix(cfg.Fail, config.Master); masters {
		if framework.Role() != framework.RoleMaster {
			return ""
		}
		return fail
	}
	return cfg.Fail
}

func failAtStart(fail string) {
	switch fail {
	case config.FailExit0:
		os.Exit(0)
	case config.FailExit1:
		fmt.Fprintln(os.Stderr, "testapp: exits as told")
		os.Exit(1)
	case config.FailPanic:
		panic("testapp: panics as told")
	case config.FailHang:
		fmt.Fprintln(os.Stderr, "testapp: hangs as told")
		forever()
	}
}

func failInBuild(ctx context.Context, fail string) error {
	switch fail {
	case config.FailBuild:
		return errors.New("testapp: build fails as told")
	case config.FailBuildPanic:
		panic("testapp: build panics as told")
	case config.FailNeverReady:
		fmt.Fprintln(os.Stderr, "testapp: waits as told")
		forever()
	case config.FailAfterReady:
		time.AfterFunc(300*time.Millisecond, func() { os.Exit(3) })
	case config.FailLater:
		time.AfterFunc(2*time.Second, func() { os.Exit(3) })
	case config.FailStop:
		framework.OnStop(ctx, func(context.Context) error { forever(); return nil })
	}
	return nil
}

// forever is not select {}, which the runtime would report as a deadlock.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}
