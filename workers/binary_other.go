//go:build unix && !linux

package workers

// execPath is the path to execute. An open file cannot be executed here, so a
// replaced binary is what a respawn runs.
func (b *Binary) execPath(int) string { return b.Path }
