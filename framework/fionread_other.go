//go:build unix && !linux

package framework

// fionread is FIONREAD of the BSDs and of darwin, which x/sys does not name on
// all of them.
const fionread = 0x4004667f
