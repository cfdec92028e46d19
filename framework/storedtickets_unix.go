//go:build unix

package framework

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/baton-go/baton/internal/systemd"
	"github.com/baton-go/baton/internal/tickets"
)

// storedTickets is what the keys of session tickets are stored as with systemd,
// in memory: clients resume their sessions after a restart, too.
const storedTickets = "tickets"

// ticketsSize is more than their record ever needs. What is stored is written
// over in one piece of that size.
const ticketsSize = 4096

// storeTickets stores the keys, or renews what is stored. m.rotation is held.
func (m *master) storeTickets() {
	if len(m.o.tls) == 0 || m.herald.n == nil || m.replaced.Load() {
		return
	}
	if err := m.writeTickets(); err != nil {
		m.o.logger.Warn("TLS sessions are not resumed after a restart", "reason", err.Error())
	}
}

func (m *master) writeTickets() error {
	data, err := json.Marshal(m.tickets.Record())
	if err != nil {
		return err
	}
	if len(data) > ticketsSize {
		return fmt.Errorf("the keys take %d bytes, more than %d", len(data), ticketsSize)
	}
	data = append(data, bytes.Repeat([]byte{' '}, ticketsSize-len(data))...)
	known := m.ticketFile != nil
	if !known {
		if m.ticketFile, err = systemd.NewMemory("baton-tickets"); err != nil {
			return err
		}
	}
	if _, err := m.ticketFile.WriteAt(data, 0); err != nil || known {
		return err
	}
	_ = m.unstore(storedTickets) // an earlier master's
	name, _ := systemd.StoreName(storedTickets)
	m.herald.say(m.herald.n.Store(name, m.ticketFile))
	return nil
}

// readTickets takes up what an earlier master had stored; nil if there is none.
func (m *master) readTickets() (*tickets.Ring, error) {
	f := m.stored[storedTickets]
	if f == nil {
		return nil, nil
	}
	delete(m.stored, storedTickets)
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, ticketsSize))
	if err != nil {
		return nil, err
	}
	var rec tickets.Record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("record of %d bytes: it is none", len(data)) // and not what is in it
	}
	return tickets.FromRecord(rec)
}
