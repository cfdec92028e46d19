package listener

import (
	"bufio"
	"net"
	"os"
	"strconv"
	"strings"
)

// handshaking says whether a handshake with the port of addr has begun and not
// ended: state SYN_RECV in /proc/net/tcp (proc_net_tcp(5), include/net/tcp_states.h).
// Where that cannot be read it says no.
func handshaking(addr *net.TCPAddr) bool {
	const state = "03"
	port := ":" + strings.ToUpper(strconv.FormatInt(0x10000|int64(addr.Port), 16)[1:])
	for _, path := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		if grepSocket(path, port, state) {
			return true
		}
	}
	return false
}

// grepSocket looks for a line "sl local_address rem_address st …".
func grepSocket(path, port, state string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if c := strings.Fields(s.Text()); len(c) > 3 && c[3] == state && strings.HasSuffix(c[1], port) {
			return true
		}
	}
	return false
}
