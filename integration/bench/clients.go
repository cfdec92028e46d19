//go:build linux

package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/baton-go/baton/integration/peers"
	"golang.org/x/sys/unix"
)

// Connections come from addresses 127.1.0.1 and up by turns.
const (
	firstClient = 0x7f010001
	clients     = 240
)

//go:embed preload/clients.c
var clientsC string

// preload builds what gives the connections of wrk these addresses. Without a C
// compiler it returns "", and they all come from one.
func preload(ctx context.Context, dir string) (string, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", nil
	}
	source, library := filepath.Join(dir, "clients.c"), filepath.Join(dir, "clients.so")
	if err := os.WriteFile(source, []byte(clientsC), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, cc, "-shared", "-fPIC", "-O2",
		fmt.Sprintf("-DFIRST=%#x", firstClient), fmt.Sprintf("-DCLIENTS=%d", clients), "-o", library, source, "-ldl")
	cmd.SysProcAttr = peers.Apart()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", filepath.Base(library), err, out)
	}
	return library, nil
}

// A dialer connects from one address after the other.
type dialer struct{ n atomic.Uint32 }

func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ip := make(net.IP, net.IPv4len)
	binary.BigEndian.PutUint32(ip, firstClient+d.n.Add(1)%clients)
	from := net.Dialer{
		Timeout: idleTimeout, LocalAddr: &net.TCPAddr{IP: ip},
		// The port is chosen by the connect, when both ends are known.
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if e := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			}); e != nil {
				return e
			}
			return err
		},
	}
	return from.DialContext(ctx, network, addr)
}
