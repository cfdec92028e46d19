package listener

import "errors"

// MaxSlots is how many sockets a [Group] can have.
const MaxSlots = 1024

// ErrNoGroup is wrapped by every error about what a [Group] needs and this
// system, this process or this socket lacks.
var ErrNoGroup = errors.New("listener: the kernel cannot take sockets in turn")
