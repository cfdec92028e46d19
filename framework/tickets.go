package framework

import (
	"bytes"
	"crypto/tls"
	"sync"

	"github.com/baton-go/baton/internal/tickets"
)

// ticketKeys brings the session ticket keys of the master into the TLS configs
// of this process. Without a master there are none, and crypto/tls makes its own.
type ticketKeys struct {
	mu      sync.Mutex
	keys    tickets.Keys
	configs []ticketConfig
}

type ticketConfig struct {
	listener string
	config   *tls.Config
}

// use gives c the keys, now and when they change, unless the application has
// taken care of them.
func (t *ticketKeys) use(listener string, c *tls.Config) {
	if ownTickets(c) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own := ticketConfig{listener, c}
	t.configs = append(t.configs, own)
	own.set(t.keys)
}

func (t *ticketKeys) set(keys tickets.Keys) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = keys
	for _, c := range t.configs {
		c.set(keys)
	}
}

func (c ticketConfig) set(keys tickets.Keys) {
	if len(keys) > 0 {
		c.config.SetSessionTicketKeys(keys.For(c.listener))
	}
}

// ownTickets says whether c makes no tickets, or has keys that the application
// has set. There is no asking for these; but copies of a config without keys
// each make their own, and so seal the same differently.
func ownTickets(c *tls.Config) bool {
	if c.SessionTicketsDisabled || c.WrapSession != nil || c.UnwrapSession != nil {
		return true
	}
	seal := func() []byte {
		k := c.Clone()
		k.Rand = nil
		_, _ = k.EncryptTicket(tls.ConnectionState{}, &tls.SessionState{}) // makes the key
		k.Rand = zeros{}
		ticket, _ := k.EncryptTicket(tls.ConnectionState{}, &tls.SessionState{})
		return ticket
	}
	return bytes.Equal(seal(), seal())
}

// zeros takes the chance out of a ticket.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
