//go:build linux

package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// What the master understands, written down again: a hostile worker has none
// of its code.
const (
	typeAck  = 67
	typeNack = 68
	typePong = 69

	maxPayload = 32 << 10
)

// message is one of ours: version, type, number of files, length, payload.
func message(typ uint8, files int, payload []byte) []byte {
	b := []byte{1, typ}
	b = binary.LittleEndian.AppendUint16(b, uint16(files))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// send waits for room for at most 2 s. A master that has hung up is what an
// attack is after, and no error.
func send(fd int, b []byte, files ...int) error {
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	for deadline := time.Now().Add(2 * time.Second); ; {
		err := unix.Sendmsg(fd, b, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			if time.Now().After(deadline) {
				return err
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100)
			continue
		}
		return err
	}
}

func sendGarbage(fd int) error {
	for _, n := range []int{1, 7, 8, 64, 4096} {
		b := make([]byte, n)
		rand.Read(b)
		if err := send(fd, b); err != nil {
			return err
		}
	}
	return nil
}

func sendOversize(fd int) error {
	return send(fd, message(typePong, 0, make([]byte, maxPayload+1024)))
}

func sendUnknown(fd int) error {
	return send(fd, message(250, 0, []byte("what is this")))
}

func sendFlood(fd int) error {
	b := message(typePong, 0, nil)
	for range 20_000 {
		if err := send(fd, b); err != nil {
			return err
		}
	}
	return nil
}

// sendAbsurdAcks acknowledges and refuses connections that never were, were
// settled long ago, or are not whole numbers of ids.
func sendAbsurdAcks(fd int) error {
	var ids []byte
	for _, id := range []uint64{0, 1, 1, 1, 2, 3, 1 << 40, 1<<64 - 1} {
		ids = binary.LittleEndian.AppendUint64(ids, id)
	}
	for _, m := range [][]byte{
		message(typeAck, 0, ids),
		message(typeNack, 0, ids),
		message(typeAck, 0, nil),
		message(typeAck, 0, ids[:13]),
	} {
		if err := send(fd, m); err != nil {
			return err
		}
	}
	return nil
}

func shutDown(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) }

// stopSelf stops the process once the answer has had time to leave: the signal
// stops all its threads at once.
func stopSelf(int) error {
	time.AfterFunc(100*time.Millisecond, func() { _ = unix.Kill(unix.Getpid(), unix.SIGSTOP) })
	return nil
}
