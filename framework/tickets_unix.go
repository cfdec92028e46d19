//go:build unix

package framework

import (
	"encoding/json"
	"time"

	"github.com/baton-go/baton/internal/tickets"
)

// shared is what a master shares with its workers. Releases may differ in what
// they know of it.
type shared struct {
	TicketKeys []byte `json:"ticket_keys"` // tickets.Keys
}

// follow takes what the master shares: what came with the welcome before it
// returns, the rest as it comes, until the last connection has ended.
func (l *life) follow(shared <-chan []byte, log logger) {
	take := func(b []byte) {
		if err := l.tickets.receive(b); err != nil {
			log.Warn("what the master shares is not understood", "reason", err.Error())
		}
	}
	select {
	case b := <-shared:
		take(b)
	default:
	}
	go func() {
		for {
			select {
			case b := <-shared:
				take(b)
			case <-l.base.Done():
				return
			}
		}
	}()
}

// receive takes what the master shares.
func (t *ticketKeys) receive(b []byte) error {
	var s shared
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	keys, err := tickets.ParseKeys(s.TicketKeys)
	if err != nil {
		return err
	}
	t.set(keys)
	return nil
}

// openTickets takes the predecessor's keys, or makes some.
func (m *master) openTickets() {
	m.tickets = tickets.New()
	if rec := m.offer.Tickets; rec != nil {
		ring, err := tickets.FromRecord(*rec)
		if err != nil {
			// Not worth the upgrade: clients do full handshakes once.
			m.o.logger.Warn("TLS sessions are not resumed: the old master's keys are of no use", "reason", err.Error())
			return
		}
		m.tickets = ring
		return
	}
	ring, err := m.readTickets()
	if err != nil {
		m.o.logger.Warn("TLS sessions are not resumed: the stored keys are of no use", "reason", err.Error())
	}
	if ring != nil {
		m.tickets = ring
	}
}

func (m *master) shareTickets() {
	data, err := json.Marshal(shared{TicketKeys: m.tickets.Keys().Bytes()})
	if err == nil {
		err = m.pool.Share(data)
	}
	if err != nil {
		panic("framework: " + err.Error()) // plain values of a few hundred bytes
	}
}

// rotateTickets is the part of the master that renews the keys.
func (m *master) rotateTickets(quit <-chan struct{}) error {
	select {
	case <-m.mayControl: // until then they are the predecessor's
	case <-quit:
		return nil
	}
	for {
		m.rotation.Lock()
		due := m.tickets.Due()
		m.rotation.Unlock()
		select {
		case <-time.After(due):
		case <-quit:
			return nil
		}
		m.rotation.Lock()
		if m.replaced.Load() {
			m.rotation.Unlock()
			<-quit
			return nil
		}
		m.tickets.Rotate()
		m.shareTickets()
		m.storeTickets()
		m.rotation.Unlock()
	}
}
