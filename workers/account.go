package workers

// Account is a user that workers run as, when it is not the master's own.
type Account struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
}
