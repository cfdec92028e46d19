//go:build !baton_fault

package fault

// Point does nothing.
func Point(string) {}
