//go:build !linux

package workers

// BePatient does nothing here.
func BePatient() {}

func impatiently(f func() error) error { return f() }
