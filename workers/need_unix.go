//go:build unix

package workers

// FilesNeeded returns how many descriptors the master of a pool needs for it:
// the least with which it can serve, and replace its workers, and the most that
// it uses at a time. Connections that the workers have acknowledged are not
// among them.
func FilesNeeded(workers, maxDraining int) (least, most int) {
	// Of each generation its binary; of each worker what is handed over, and
	// its stderr until it is ready.
	generation := 1 + workers*(filesPerChild+1)
	handover := 1 + workers*filesPerChild
	window := workers * DefaultWindow
	least = reservedFiles + acceptBatch + 2*generation
	// One generation starts, one serves, the others drain, and all but the
	// starting one are handed over as duplicates, with what is unacknowledged.
	// The connections of one generation move at a time: that takes a second. Each
	// has a token with it.
	most = reservedFiles + acceptBatch + (maxDraining+2)*generation + (maxDraining+1)*handover +
		2*2*window + 2*workers*maxReturns
	return least, most
}
