package framework

import (
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
// has set. There is no asking for these; but two copies of a config without
// keys make different ones, and cannot open each other's tickets.
func ownTickets(c *tls.Config) bool {
	if c.SessionTicketsDisabled || c.WrapSession != nil || c.UnwrapSession != nil {
		return true
	}
	var none tls.ConnectionState
	ticket, err := c.Clone().EncryptTicket(none, &tls.SessionState{})
	if err != nil {
		return false
	}
	state, err := c.Clone().DecryptTicket(ticket, none)
	return err == nil && state != nil
}
