//go:build linux

package main

import (
	"errors"
	"net/http"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// attacks are what a worker can do to its master over the socket between them,
// by the name in /hostile?do=NAME. The request is answered when it is done.
var attacks = map[string]func(ipc int) error{
	"garbage":     sendGarbage,    // bytes that are no message
	"oversize":    sendOversize,   // a message beyond the limit
	"wrong-fds":   sendWrongFiles, // descriptors that nobody asked for
	"linger":      sendLingering,  // sockets whose close blocks
	"absurd-acks": sendAbsurdAcks, // acknowledgements of what it never got
	"unknown":     sendUnknown,    // a type that does not exist
	"flood":       sendFlood,      // 20,000 valid messages at once
	"shutdown":    shutDown,       // ends the socket and lives on
	"stop":        stopSelf,       // SIGSTOP: it reads nothing any more
}

func hostile(w http.ResponseWriter, r *http.Request) {
	attack := attacks[r.FormValue("do")]
	if attack == nil {
		http.Error(w, "do: unknown", http.StatusBadRequest)
		return
	}
	if path := r.FormValue("when"); path != "" {
		armed(w, path, attack)
		return
	}
	fd, err := masterSocket()
	if err == nil {
		err = attack(fd)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Write([]byte("done\n"))
}

// masterSocket finds the socket to the master: the process' only SEQPACKET.
func masterSocket() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1, err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || domain != unix.AF_UNIX {
			continue
		}
		if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && typ == unix.SOCK_SEQPACKET {
			return fd, nil
		}
	}
	return -1, errors.New("no socket to the master")
}
