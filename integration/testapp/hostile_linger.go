//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const typeConn = 3

// The attack of one who snatches a connection from under its own framework,
// gives it data that its client does not read and a close that lingers, closes
// its own copy, and only then acknowledges: the last close is the master's.
// Then it dies.
func init() {
	attacks["linger-ack"] = func(fd int) error {
		go func() {
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
				if snatch(fd) {
					os.Exit(7)
				}
			}
		}()
		return nil
	}
}

// snatch takes one message from the master, if there is one, and says whether
// that was a connection.
func snatch(fd int) bool {
	conns, payload := snatchConns(fd)
	if len(conns) == 0 {
		return false
	}
	var ids []byte
	for i, c := range conns {
		_ = unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600})
		junk := make([]byte, 64<<10)
		for {
			if _, err := unix.SendmsgN(c, junk, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); errors.Is(err, unix.EAGAIN) || err != nil {
				break
			}
		}
		_ = unix.Close(c)
		ids = binary.LittleEndian.AppendUint64(ids, binary.LittleEndian.Uint64(payload[10*i:]))
	}
	return send(fd, message(typeAck, 0, ids)) == nil
}
