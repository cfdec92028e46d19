//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What a worker can do with what it was given: end it for whoever else has it, and
// listen to nothing any more.
func init() {
	attacks["shutdown-all"] = shutDownAll
	attacks["shutdown-conns"] = func(fd int) error {
		go func() {
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
				if conns, _ := snatchConns(fd); len(conns) > 0 {
					for _, c := range conns {
						_ = unix.Shutdown(c, unix.SHUT_RDWR)
					}
					os.Exit(7) // and they were never acknowledged
				}
			}
		}()
		return nil
	}
	attacks["deaf"] = deaf
	attacks["flood-pongs"] = forAWhile(func(fd int) error { return send(fd, message(typePong, 0, nil)) })
	attacks["flood-intros"] = forAWhile(func(fd int) error { return send(fd, message(64, 0, bigJSON)) })
}

// bigJSON takes its time to be read.
var bigJSON = func() []byte {
	b := []byte(`{"x":[0`)
	for len(b) < 30<<10 {
		b = append(b, ",0"...)
	}
	return append(b, "]}"...)
}()

// armed starts an attack once there is a file at path, for a time at which nobody
// can be asked by a request.
func armed(w http.ResponseWriter, path string, attack func(fd int) error) {
	go func() {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if fd, err := masterSocket(); err == nil {
				err = attack(fd)
				fmt.Fprintln(os.Stderr, "testapp: attacked:", err)
				return
			}
		}
	}()
	w.Write([]byte("armed\n"))
}

// shutDownAll ends every socket that the process has, whatever it is. The answer
// to the request is among what is ended, so it goes first.
func shutDownAll(int) error {
	time.AfterFunc(100*time.Millisecond, func() {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				_ = unix.Shutdown(fd, unix.SHUT_RDWR)
			}
		}
	})
	return nil
}

// deaf gives the framework another socket in the place of the one to the master,
// reads nothing from that any more, and goes on saying that it is well.
func deaf(fd int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	real, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.Dup3(pair[0], fd, unix.O_CLOEXEC)
	}
	if err != nil {
		return err
	}
	go func() {
		for {
			err := unix.Sendmsg(real, message(typePong, 0, nil), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if err != nil && !errors.Is(err, unix.EAGAIN) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return nil
}

// snatchConns takes one message from the master, if there is one, with the
// connections that are in it and their payload.
func snatchConns(fd int) (conns []int, payload []byte) {
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(253*4))
	n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil || n < 8 || b[1] != typeConn {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cmsgs) == 0 {
		return nil, nil
	}
	conns, _ = unix.ParseUnixRights(&cmsgs[0])
	return conns, b[8:n]
}
