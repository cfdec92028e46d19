//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sendWrongFiles sends the ends of a pipe, a file and a directory with a
// message that takes none, and fewer files than another message announces.
func sendWrongFiles(fd int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	dir, err := os.Open("/")
	if err != nil {
		return err
	}
	defer dir.Close()
	files := []int{int(r.Fd()), int(w.Fd()), int(dir.Fd())}
	if err := send(fd, message(typePong, len(files), nil), files...); err != nil {
		return err
	}
	return send(fd, message(typePong, 9, nil), files...)
}

// sendLingering sends eight connected sockets with unsent data and SO_LINGER,
// and gives up its own copies: whoever closes the last one waits 5 s.
func sendLingering(fd int) error {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	var files []int
	defer func() {
		for _, f := range files {
			_ = unix.Close(f)
		}
	}()
	for range 8 {
		f, err := stuckSocket(ln)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	return send(fd, message(typePong, len(files), nil), files...)
}

// silent keeps the peers of stuck sockets open and unread.
var silent []net.Conn

func stuckSocket(ln net.Listener) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	peer, err := ln.Accept()
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	silent = append(silent, peer)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 5}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	junk := make([]byte, 64<<10)
	for {
		if _, err := unix.SendmsgN(fd, junk, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); errors.Is(err, unix.EAGAIN) {
			return fd, nil
		} else if err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
}
