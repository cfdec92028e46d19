//go:build !unix

package movable

// queued reports whether bytes wait to be read, which is not known here.
func queued(Stream) bool { return false }
