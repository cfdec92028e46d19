//go:build linux

package main

import (
	"context"
	"time"
)

// takeTime is what an application does while it connects to things.
func takeTime(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
