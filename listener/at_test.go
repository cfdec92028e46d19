package listener

import (
	"net"
	"testing"
)

func TestASocketIsKnownByItsAddress(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	unix := func(path string) net.Addr { return &net.UnixAddr{Name: path, Net: "unix"} }
	for _, c := range []struct {
		network, address string
		at               net.Addr
		want             bool
	}{
		{"tcp", "127.0.0.1:80", tcp("127.0.0.1", 80), true},
		{"tcp", "127.0.0.1:http", tcp("127.0.0.1", 80), true},
		{"tcp", "127.0.0.1:0", tcp("127.0.0.1", 4711), true},
		{"tcp", "127.0.0.1:80", tcp("127.0.0.1", 81), false},
		{"tcp", "127.0.0.1:80", tcp("127.0.0.2", 80), false},
		{"tcp", "127.0.0.1:80", tcp("0.0.0.0", 80), false},
		{"tcp", ":80", tcp("::", 80), true},
		{"tcp", ":80", tcp("0.0.0.0", 80), true},
		{"tcp", ":80", tcp("127.0.0.1", 80), false},
		{"tcp", "0.0.0.0:80", tcp("0.0.0.0", 80), true},
		{"tcp", "0.0.0.0:80", tcp("::", 80), false},
		{"tcp4", ":80", tcp("::", 80), false},
		{"tcp4", ":80", tcp("0.0.0.0", 80), true},
		{"tcp6", ":80", tcp("::", 80), true},
		{"tcp6", ":80", tcp("0.0.0.0", 80), false},
		{"tcp6", "[::1]:80", tcp("::1", 80), true},
		{"tcp", "localhost:80", tcp("127.0.0.1", 80), false},
		{"tcp", "/run/app.sock", tcp("127.0.0.1", 80), false},
		{"unix", "/run/app.sock", unix("/run/app.sock"), true},
		{"unix", "/run//app.sock", unix("/run/app.sock"), true},
		{"unix", "/run/app.sock", unix("/run/other.sock"), false},
		{"unix", "@app", unix("@app"), true},
		{"unix", "@app", unix("@other"), false},
		{"unix", "127.0.0.1:80", tcp("127.0.0.1", 80), false},
		{"tcp", "127.0.0.1:80", unix("127.0.0.1:80"), false},
		{"unix", "/run/app.sock", &net.UDPAddr{Port: 80}, false},
	} {
		if got := NewSpec(c.network, c.address).BoundAt(c.at); got != c.want {
			t.Errorf("%s %s at %s %s: %v, want %v", c.network, c.address, c.at.Network(), c.at, got, c.want)
		}
	}
}
