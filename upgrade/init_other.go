//go:build !linux

package upgrade

// IsInit says whether this process is the first one of a container. There are
// none here.
func IsInit() bool { return false }
