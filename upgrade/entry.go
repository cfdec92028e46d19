package upgrade

import "os"

// Entry is what one owner hands over: data that only the owner understands,
// and files.
type Entry struct {
	Owner string
	Data  []byte
	Files []*os.File
}

// Close closes the files of entries.
func Close(entries []Entry) {
	for _, e := range entries {
		for _, f := range e.Files {
			f.Close()
		}
	}
}

// RefusedError says why an upgrade did not happen. The old process goes on.
type RefusedError struct {
	Reason string
	Stderr string // the end of what the new process wrote, where that can be had
	Err    error
}

func (e *RefusedError) Error() string { return "upgrade refused: " + e.Reason }

func (e *RefusedError) Unwrap() error { return e.Err }
