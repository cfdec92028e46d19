// Package ipc carries small messages and open files between a master and one
// of its workers, over a pair of connected unix sockets.
//
// A message is a fixed header, a payload and up to [MaxFiles] descriptors:
//
//	offset  size  field
//	0       1     version, always 1
//	1       1     type, whose meaning belongs to the caller
//	2       2     number of descriptors that travel along, little-endian
//	4       4     length of the payload, little-endian
//	8       n     payload, at most 32 KiB
//
// On Linux the pair is SOCK_SEQPACKET and one message is one packet: the kernel
// keeps the boundaries, and a damaged message harms only itself. Elsewhere it is
// SOCK_STREAM: the header delimits the messages, the descriptors ride on the
// first byte, and a damaged header ends the conversation. The build tag
// baton_ipc_stream selects the stream on Linux too; it exists so that the tests
// can run on both.
//
// The package trusts neither end. What does not follow the format is
// [ErrProtocol] and the descriptors that came with it are closed; running out of
// descriptors is load, not an error ([ErrLoad] on the sending side,
// [Frame].Missing on the receiving one).
//
// It is usable alone, on any Unix, and empty elsewhere. Both ends may be of
// different releases: the format never changes, and what the messages mean to
// whom the caller settles by messages. It promises no compatibility of its API
// before v1.
package ipc
