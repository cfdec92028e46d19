//go:build unix

package framework

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/baton-go/baton/listener"
)

func TestSocketsFindTheirListeners(t *testing.T) {
	tcp := func(name, ip string, port int) passedSocket {
		return passedSocket{name: name, addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: port}}
	}
	unix := func(name, path string) passedSocket {
		return passedSocket{name: name, addr: &net.UnixAddr{Name: path, Net: "unix"}}
	}
	main := listener.NewSpec("tcp", ":8080", listener.Name("main"))
	admin := listener.NewSpec("unix", "/run/admin.sock", listener.Name("admin"))
	other := listener.NewSpec("tcp", "127.0.0.1:9090", listener.Name("other"))
	for _, c := range []struct {
		name    string
		specs   []listener.Spec
		sockets []passedSocket
		want    []int
		problem string
	}{
		{"none", []listener.Spec{main}, nil, []int{}, ""},
		{"by name", []listener.Spec{main, admin}, []passedSocket{unix("admin", "/x"), tcp("main", "::", 80)}, []int{1, 0}, ""},
		{"by address", []listener.Spec{main, admin}, []passedSocket{unix("a.socket", "/run/admin.sock"), tcp("b.socket", "::", 8080)}, []int{1, 0}, ""},
		{"one and one", []listener.Spec{main}, []passedSocket{tcp("app.socket", "::", 80)}, []int{0}, ""},
		{"all of one name", []listener.Spec{main, other}, []passedSocket{tcp("main", "127.0.0.1", 9090), tcp("main", "::", 8080)}, []int{1, 0}, ""},
		{"the name before the address", []listener.Spec{main, other}, []passedSocket{tcp("other", "::", 8080), tcp("main", "127.0.0.1", 9090)}, []int{1, 0}, ""},
		{"some listeners without", []listener.Spec{main, admin, other}, []passedSocket{tcp("other", "::", 80)}, []int{2}, ""},
		{
			"one of two fits none", []listener.Spec{main, admin}, []passedSocket{tcp("main", "::", 80), tcp("web", "127.0.0.1", 81)}, nil,
			`socket "web" (tcp 127.0.0.1:81) of systemd fits no listener, by name or address: expected one of "main" (tcp :8080), "admin" (unix /run/admin.sock)`,
		},
		{"one and two", []listener.Spec{main, admin}, []passedSocket{tcp("app.socket", "::", 80)}, nil, `"app.socket" (tcp [::]:80)`},
		{"no listening socket", []listener.Spec{main, admin}, []passedSocket{{name: "log"}}, nil, `"log" (no listening stream socket)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, problems := assign(c.specs, c.sockets)
			if c.problem != "" {
				if len(problems) != 1 || !strings.Contains(problems[0], c.problem) {
					t.Errorf("got %q, want %q", problems, c.problem)
				}
				return
			}
			if len(problems) > 0 || !slices.Equal(got, c.want) {
				t.Errorf("got %v %q, want %v", got, problems, c.want)
			}
		})
	}
}
