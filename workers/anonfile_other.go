//go:build unix && !linux

package workers

import "os"

// anonFile makes an unlinked temporary file, which only processes given it can
// reach and which outlives its writer.
func anonFile(name string, size int64) (*os.File, error) {
	f, err := os.CreateTemp("", "baton-"+name)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
