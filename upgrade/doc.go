// Package upgrade replaces a running process by a new one of the binary now on
// disk, without a moment in which nobody holds its sockets.
//
// tableflip starts the new process and hands it the long-lived files: the
// listeners, a lock. Beside that a socket joins both processes, over which the
// old one hands over what lives and changes: opaque data and files, by owner.
//
//	old                                new
//	Upgrade: starts new, offers   →    Predecessor.Offer
//	                                   gets ready on its own
//	                              ←    Predecessor.Prepared
//	Freeze, its entries           →    checks them
//	                              ←    Predecessor.Accept: received, and
//	                                   tableflip's own ready
//	go                            →    acts on what it got
//	exits at once
//
// Until "go" the old process can take everything up again, and does when the
// new one fails, dies or is late. From "go" on it touches nothing. Should it
// die before it said so, the new one goes on as soon as it is seen to be gone.
//
// RunInit is the init of a container, the one process that stays. It starts the
// first of those processes on a socket, the line, that each hands to the next:
// over it init hears which of them counts now and passes signals on, and its end
// says that none is left. What init does when is a table, in course_linux.go.
//
// The package knows nothing of what it hands over. Both processes may be of
// different releases: what the package itself says never changes, neither to a new
// process nor to init, and a new message goes only to who is known to understand
// it. Whether the new process understands the rest it decides by the offer, before
// it does anything: Predecessor.Refuse tells why it ends.
//
// It promises no compatibility of its API before v1.
package upgrade
