//go:build linux

package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// More of what the master understands.
const (
	typeReady     = 65
	typeLeave     = 70
	typeDrained   = 71
	typeReturn    = 72
	typeUnadopted = 73
)

// Attacks that go on. They are over when the process is, or after a minute.
func init() {
	attacks["flood-errors"] = forAWhile(func(fd int) error { return send(fd, []byte("garbage")) })
	attacks["flood-files"] = forAWhile(sendManyFiles)
	attacks["flood-leave"] = forAWhile(func(fd int) error {
		if err := send(fd, message(typeLeave, 0, nil)); err != nil {
			return err
		}
		return send(fd, message(typeReady, 0, nil))
	})
	attacks["flood-returns"] = forAWhile(sendReturn)
	attacks["absurd-returns"] = sendAbsurdReturns
	attacks["absurd-report"] = func(fd int) error {
		for _, m := range []string{`{"finished":-5,"cut":9223372036854775807}`, `[]`} {
			if err := send(fd, message(typeDrained, 0, []byte(m))); err != nil {
				return err
			}
		}
		return nil
	}
}

// sendReturn gives back a connection that nobody ever made.
func sendReturn(fd int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	return send(fd, message(typeReturn, 1, make([]byte, 15)), pair[0])
}

// sendAbsurdReturns gives back what is no connection, or nobody's.
func sendAbsurdReturns(fd int) error {
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer pipeR.Close()
	defer pipeW.Close()
	payload := make([]byte, 17)
	handoff := append(payload[:10:10], 1<<2, 0, 0, 0, 0, 0, 0)
	tooLong := append(payload[:15:15], 0xff, 0xff)
	for _, m := range []struct {
		payload []byte
		files   []int
	}{
		{payload, nil},
		{payload[:7], []int{int(pipeR.Fd())}},
		{payload, []int{int(pipeR.Fd())}},
		{payload, []int{int(pipeR.Fd()), int(pipeW.Fd())}},
		{append(payload[:8:8], 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0), []int{0}},
		{handoff, []int{int(pipeR.Fd())}},
		{append(handoff, make([]byte, 20<<10)...), []int{0}},
		{append(tooLong, make([]byte, 30<<10)...), []int{0}},
	} {
		if err := send(fd, message(typeReturn, len(m.files), m.payload), m.files...); err != nil {
			return err
		}
	}
	for _, m := range [][]byte{
		message(typePresent, 0, payload[:8]), message(typePresent, 0, payload[:7]),
		message(typeUnadopted, 0, payload[:8]), message(typeUnadopted, 0, payload[:13]),
	} {
		if err := send(fd, m); err != nil {
			return err
		}
	}
	return nil
}

// forAWhile repeats an attack beside the answer.
func forAWhile(attack func(fd int) error) func(int) error {
	return func(fd int) error {
		go func() {
			for end := time.Now().Add(time.Minute); time.Now().Before(end); {
				if attack(fd) != nil {
					return
				}
			}
		}()
		return nil
	}
}

// sendManyFiles sends as many descriptors as a message can carry.
func sendManyFiles(fd int) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	files := make([]int, 253)
	for i := range files {
		files[i] = int(null.Fd())
	}
	return send(fd, message(typePong, len(files), nil), files...)
}
