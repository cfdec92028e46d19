//go:build !linux

package framework

// Nobody is RoleInit here.
func runInit(*options) error { return nil }
