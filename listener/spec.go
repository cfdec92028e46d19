package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
)

// Spec says what to listen on. It is comparable: two equal specs ask for the
// same socket.
type Spec struct {
	// Name is what logs, status and socket activation call it: 1 to 255 of
	// [A-Za-z0-9._:/@\[\]-]. NewSpec makes it network:address.
	Name string `json:"name"`
	// Network is tcp, tcp4, tcp6 or unix.
	Network string `json:"network"`
	// Address is host:port, or the path of a unix socket. A path that begins
	// with @ is in Linux's abstract namespace and has no file.
	Address string `json:"address"`
	// Mode is set on the file of a unix socket, exactly, whatever the umask.
	// 0 leaves what bind gives under the umask.
	Mode fs.FileMode `json:"mode,omitempty"`
	// Owner is set on the file of a unix socket: user[:group], by name or
	// number. Without a group the file's group is left alone.
	Owner string `json:"owner,omitempty"`
	// Accept is who takes its connections; "" is for whoever listens to decide.
	// It is no part of what a socket is, and of no concern to [Bind].
	Accept AcceptMode `json:"accept,omitempty"`
}

// Option changes a Spec under construction.
type Option func(*Spec)

// Name names the listener.
func Name(name string) Option { return func(s *Spec) { s.Name = name } }

// Mode sets the permission bits of a unix socket's file.
func Mode(mode fs.FileMode) Option { return func(s *Spec) { s.Mode = mode } }

// Owner sets the owner of a unix socket's file: user[:group], names or numbers.
func Owner(owner string) Option { return func(s *Spec) { s.Owner = owner } }

// NewSpec describes a listener. Nothing is checked here: see [Spec.Validate].
func NewSpec(network, address string, options ...Option) Spec {
	s := Spec{Name: network + ":" + address, Network: network, Address: address}
	for _, o := range options {
		o(&s)
	}
	return s
}

// Key is the identity of the socket across upgrades, whatever it is called.
func (s Spec) Key() string { return s.Network + "|" + s.Address }

// Keys gives one key per spec, in order and unique: several listeners on port
// 0 are distinct sockets, so the second of them gets "|2" added, the third "|3".
func Keys(specs []Spec) []string {
	keys := make([]string, len(specs))
	seen := make(map[string]int, len(specs))
	for i, s := range specs {
		key := s.Key()
		seen[key]++
		keys[i] = key
		if n := seen[key]; n > 1 {
			keys[i] = key + "|" + strconv.Itoa(n)
		}
	}
	return keys
}

// ValidateAll checks each spec, and that no two share a name or, unless the
// port is 0, an address. All mistakes are joined in one error.
func ValidateAll(specs []Spec) error {
	var errs []error
	names := make(map[string]bool, len(specs))
	keys := make(map[string]string, len(specs))
	for _, s := range specs {
		if err := s.Validate(); err != nil {
			errs = append(errs, err)
		}
		if names[s.Name] {
			errs = append(errs, s.wrong("name", s.Name, "expected a name of its own, another listener has it"))
		}
		names[s.Name] = true
		if s.anyPort() {
			continue
		}
		if first, dup := keys[s.Key()]; dup {
			errs = append(errs, s.wrong("address", s.Address, fmt.Sprintf("expected an address of its own, listener %q has it", first)))
			continue
		}
		keys[s.Key()] = s.Name
	}
	return errors.Join(errs...)
}

// Validate reports everything that is wrong with the spec, joined: each error
// names the listener, the value and what was expected.
func (s Spec) Validate() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(s.checkName())
	switch s.Network {
	case "tcp", "tcp4", "tcp6":
		add(s.checkTCP())
	case "unix":
		add(s.checkUnix())
	default:
		add(s.wrong("network", s.Network, "expected tcp, tcp4, tcp6 or unix"))
	}
	add(s.checkMode())
	add(s.checkOwner())
	if s.Accept != "" && !s.Accept.Valid() {
		add(s.wrong("accept mode", string(s.Accept), "expected "+AcceptModes))
	}
	return errors.Join(errs...)
}

func (s Spec) wrong(field, value, expected string) error {
	return fmt.Errorf("listener %q: %s %q: %s", s.Name, field, value, expected)
}

const nameExpected = `expected 1 to 255 of [A-Za-z0-9._:/@[]-]`

// checkName keeps names fit for LISTEN_FDNAMES, log fields and paths in URLs.
func (s Spec) checkName() error {
	if s.Name == "" || len(s.Name) > 255 {
		return s.wrong("name", s.Name, nameExpected)
	}
	for i := range len(s.Name) {
		c := s.Name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune("._:/@[]-", rune(c)) {
			return s.wrong("name", s.Name, nameExpected)
		}
	}
	return nil
}

func (s Spec) checkTCP() error {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil || port == "" {
		return s.wrong("address", s.Address, "expected host:port")
	}
	if !validPort(s.Network, port) {
		return s.wrong("address", s.Address, "expected a port from 0 to 65535 or the name of a service")
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil // a host name: only the resolver can tell
	}
	if s.Network == "tcp4" && !ip.Unmap().Is4() {
		return s.wrong("address", s.Address, "expected an IPv4 address")
	}
	if s.Network == "tcp6" && ip.Unmap().Is4() {
		return s.wrong("address", s.Address, "expected an IPv6 address")
	}
	return nil
}

func validPort(network, port string) bool {
	if strings.Trim(port, "0123456789") == "" {
		_, err := strconv.ParseUint(port, 10, 16)
		return err == nil
	}
	if port[0] == '+' || port[0] == '-' {
		return false // LookupPort would take them for numbers
	}
	_, err := net.LookupPort(network, port)
	return err == nil
}

// anyPort is true when the kernel chooses the port, so that equal addresses
// are still different sockets.
func (s Spec) anyPort() bool {
	if s.Network == "unix" {
		return false
	}
	_, port, err := net.SplitHostPort(s.Address)
	return err == nil && port != "" && strings.Trim(port, "0") == ""
}

// abstract is true for unix sockets that have no file.
func (s Spec) abstract() bool { return s.Network == "unix" && strings.HasPrefix(s.Address, "@") }

// hasFile is true for unix sockets that have one.
func (s Spec) hasFile() bool { return s.Network == "unix" && !s.abstract() }

// pathLimit is what sun_path holds, less its final zero byte.
func pathLimit() int {
	switch runtime.GOOS {
	case "linux", "windows":
		return 107
	default:
		return 103
	}
}

func (s Spec) checkUnix() error {
	switch limit := pathLimit(); {
	case s.Address == "":
		return s.wrong("address", s.Address, "expected the path of a socket")
	case strings.ContainsRune(s.Address, 0):
		return s.wrong("address", s.Address, "expected a path without zero bytes")
	case len(s.Address) > limit:
		return s.wrong("address", s.Address, fmt.Sprintf("expected at most %d bytes, got %d", limit, len(s.Address)))
	case s.Address == "@":
		return s.wrong("address", s.Address, "expected a name after @")
	case s.abstract() && runtime.GOOS != "linux":
		return s.wrong("address", s.Address, "expected a path, abstract sockets exist on Linux only")
	}
	return nil
}

func (s Spec) checkMode() error {
	switch {
	case s.Mode == 0:
		return nil
	case !s.hasFile():
		return fmt.Errorf("listener %q: mode %#o: expected only with the path of a unix socket", s.Name, uint32(s.Mode))
	case s.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("listener %q: mode %#o: expected permission bits only", s.Name, uint32(s.Mode))
	}
	return nil
}

func (s Spec) checkOwner() error {
	switch {
	case s.Owner == "":
		return nil
	case !s.hasFile():
		return s.wrong("owner", s.Owner, "expected only with the path of a unix socket")
	case runtime.GOOS == "windows":
		return s.wrong("owner", s.Owner, "expected nothing, files have no unix owner on Windows")
	}
	_, _, err := s.ownerIDs()
	return err
}
