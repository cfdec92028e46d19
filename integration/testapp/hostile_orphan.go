//go:build linux

package main

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const typePresent = 74

// The attacks of a worker whose master has died: on the socket at which the next
// one waits for it.
func init() {
	attacks["pester"] = func(int) error {
		go pester(filepath.Join(os.Getenv("BATON_RUNTIME_DIR"), "adopt.sock"))
		return nil
	}
}

// pester connects again and again, for as long as there is a socket: with what says
// nothing, with rubbish, with many files, and with what presents nobody.
func pester(path string) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	files := make([]int, 253)
	for i := range files {
		files[i] = int(null.Fd())
	}
	var open []int
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return
		}
		if unix.Connect(fd, &unix.SockaddrUnix{Name: path}) != nil {
			unix.Close(fd)
			time.Sleep(time.Millisecond)
			continue
		}
		open = append(open, fd)
		switch len(open) % 4 {
		case 0: // says nothing
		case 1:
			_ = unix.Sendmsg(fd, []byte("rubbish"), nil, nil, unix.MSG_NOSIGNAL)
		case 2:
			_ = unix.Sendmsg(fd, message(typePresent, len(files), []byte(`{"nonce":"x","generation":1,"slot":1}`)), unix.UnixRights(files...), nil, unix.MSG_NOSIGNAL)
		case 3:
			_ = unix.Sendmsg(fd, message(typePong, 0, nil), nil, nil, unix.MSG_NOSIGNAL)
		}
		if len(open) > 100 {
			for _, fd := range open {
				unix.Close(fd)
			}
			open = nil
		}
	}
}
