package framework

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/baton-go/baton/internal/testcert"
	"github.com/baton-go/baton/internal/tickets"
)

// resumes makes two connections, to one server after the other, and says
// whether the second resumes the session of the first.
func resumes(t *testing.T, cert testcert.Cert, version uint16, first, second *tls.Config) bool {
	t.Helper()
	c := &tls.Config{RootCAs: cert.Pool(), ServerName: "localhost", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := false
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, config := range []*tls.Config{first, second} {
		done := make(chan error, 1)
		go func() {
			conn, err := ln.Accept()
			if err == nil {
				_, err = tls.Server(conn, config).Write([]byte("x"))
				conn.Close()
			}
			done <- err
		}()
		client := dialTLS(t, ln.Addr().String(), c)
		if _, err := client.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		resumed = client.ConnectionState().DidResume
		client.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	return resumed
}

func TestTicketsAreGoodAtAllWorkersForTheirListener(t *testing.T) {
	cert := testcert.New(t, 1)
	ring := tickets.New()
	// worker is one with listeners main and admin.
	worker := func(keys tickets.Keys) (t *ticketKeys, main, admin *tls.Config) {
		t = &ticketKeys{}
		main = &tls.Config{Certificates: []tls.Certificate{cert.TLS()}}
		admin = main.Clone()
		t.set(keys)
		t.use("main", main)
		t.use("admin", admin)
		return t, main, admin
	}
	old, oldMain, _ := worker(ring.Keys())
	ring.Rotate()
	_, main, admin := worker(ring.Keys())
	_, alone, _ := worker(nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range []struct {
			name          string
			first, second *tls.Config
			want          bool
		}{
			{"an older key", oldMain, main, true},
			{"a key that is not in use everywhere yet", main, oldMain, true},
			{"of another listener", main, admin, false},
			{"of nobody", alone, main, false},
			{"with keys of its own", alone, alone, true},
		} {
			if got := resumes(t, cert, version, tt.first, tt.second); got != tt.want {
				t.Errorf("%s, %s: resumed %v", tls.VersionName(version), tt.name, got)
			}
		}
	}
	for range 20 {
		ring.Rotate()
	}
	_, main, _ = worker(ring.Keys())
	if resumes(t, cert, 0, oldMain, main) {
		t.Error("a key is good for ever")
	}
	old.set(ring.Keys())
	if !resumes(t, cert, 0, oldMain, main) {
		t.Error("new keys do not reach a config that is in use")
	}
}

func TestTicketsOfTheApplicationAreLeftAlone(t *testing.T) {
	cert := testcert.New(t, 1)
	key := [32]byte{1, 2, 3}
	for name, tt := range map[string]struct {
		change func(*tls.Config)
		own    bool
	}{
		"nothing":   {func(*tls.Config) {}, false},
		"protocols": {func(c *tls.Config) { c.NextProtos = []string{"h2"} }, false},
		"disabled":  {func(c *tls.Config) { c.SessionTicketsDisabled = true }, true},
		"keys":      {func(c *tls.Config) { c.SetSessionTicketKeys([][32]byte{key}) }, true},
		"key": {func(c *tls.Config) {
			c.SessionTicketKey = key //lint:ignore SA1019 applications may still
		}, true},
		"wrap": {func(c *tls.Config) {
			c.WrapSession = func(tls.ConnectionState, *tls.SessionState) ([]byte, error) { return nil, errors.ErrUnsupported }
		}, true},
		"unwrap": {func(c *tls.Config) {
			c.UnwrapSession = func([]byte, tls.ConnectionState) (*tls.SessionState, error) { return nil, nil }
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := &tls.Config{Certificates: []tls.Certificate{cert.TLS()}}
			tt.change(c)
			c = c.Clone()
			if own := ownTickets(c); own != tt.own {
				t.Errorf("own: %v", own)
			}
			if own := ownTickets(c); own != tt.own {
				t.Errorf("asked again, own: %v", own)
			}
			var k ticketKeys
			k.use("main", c)
			k.set(tickets.New().Keys())
			if got := len(k.configs) == 0; got != tt.own {
				t.Errorf("left alone: %v", got)
			}
		})
	}
	// Two hosts that share the application's keys, each with a master.
	hosts := make([]*tls.Config, 2)
	for i := range hosts {
		hosts[i] = &tls.Config{Certificates: []tls.Certificate{cert.TLS()}}
		hosts[i].SetSessionTicketKeys([][32]byte{key})
		var k ticketKeys
		k.use("main", hosts[i])
		k.set(tickets.New().Keys())
	}
	if !resumes(t, cert, 0, hosts[0], hosts[1]) {
		t.Error("the keys of the application were replaced")
	}
}
