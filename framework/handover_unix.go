//go:build unix

package framework

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/baton-go/baton/internal/fault"
	"github.com/baton-go/baton/internal/rundir"
	"github.com/baton-go/baton/internal/tickets"
	"github.com/baton-go/baton/listener"
	"github.com/baton-go/baton/upgrade"
	"github.com/baton-go/baton/workers"
)

// Files that every new master gets from the one before.
const (
	fileLock     = "baton/lock"
	fileControl  = "baton/control"
	fileListener = "baton/listener|" // and its key
)

// Owners of what is handed over at the end.
const ownerWorkers = "workers"

// offer is what a new master must know to start.
type offer struct {
	Protocol   workers.Versions `json:"protocol"`   // that the predecessor speaks
	Generation int              `json:"generation"` // the number of its first one
	RuntimeDir string           `json:"runtime_dir"`
	MadeDir    bool             `json:"made_dir"`    // it was made by us
	DefaultDir bool             `json:"default_dir"` // nobody has named it
	Listeners  []listener.Spec  `json:"listeners"`
	Upgrades   int              `json:"upgrades"`
	PIDFile    string           `json:"pid_file"`
	Override   int              `json:"override"` // workers, as scaled
	Activated  []activation     `json:"activated,omitempty"`
	Tickets    *tickets.Record  `json:"tickets,omitempty"`
}

func (m *master) readOffer() error {
	data, err := m.pred.Offer()
	if err != nil {
		return err
	}
	if m.offer, err = parseOffer(data); err != nil {
		return err
	}
	m.next = m.offer.Generation
	m.upgrades = m.offer.Upgrades
	m.predPID = os.Getppid()
	return nil
}

// parseOffer refuses one of a predecessor that this release cannot follow. As a
// rule that one has heard as much from the worker that it started first, but the
// file on disk may have been replaced since.
func parseOffer(data []byte) (o offer, err error) {
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("offer of the predecessor: %w", err)
	}
	if ours := workers.Protocol(); !ours.Meets(o.Protocol) {
		return o, fmt.Errorf("the old master speaks protocol %s, this release %s: %w", o.Protocol, ours, workers.ErrIncompatible)
	}
	if o.Generation < 1 {
		return o, fmt.Errorf("offer of the predecessor: generation %d", o.Generation)
	}
	return o, nil
}

func (m *master) makeOffer() []byte {
	keys := m.tickets.Record()
	data, err := json.Marshal(offer{
		Protocol: workers.Protocol(), Generation: m.next, RuntimeDir: m.dir.Path(), MadeDir: m.dir.Made(), DefaultDir: m.o.RuntimeDir == "", Listeners: m.o.Listeners,
		Upgrades: m.upgrades + 1, PIDFile: m.o.PIDFile, Override: m.pool.Override(), Tickets: &keys,
		Activated: m.activated,
	})
	if err != nil {
		panic("framework: " + err.Error()) // plain values only
	}
	return data
}

// freeze stops acting on what is handed over, and describes it.
func (m *master) freeze() ([]upgrade.Entry, error) {
	fault.Point("old: asked to hand over")
	if err := m.pool.Freeze(); err != nil {
		return nil, err
	}
	data, files, err := m.pool.Handover()
	if err != nil {
		return nil, err
	}
	return []upgrade.Entry{{Owner: ownerWorkers, Data: data, Files: files}}, nil
}

// takeOver makes this process the master: its own generation is ready, and the
// predecessor hands over the workers that live.
func (m *master) takeOver(n int) error {
	entries, err := m.pred.Prepared()
	if err != nil {
		return err
	}
	var in *workers.Inheritance
	for _, e := range entries {
		// Owners that this release does not know have nothing that it needs.
		if e.Owner != ownerWorkers {
			upgrade.Close([]upgrade.Entry{e})
			continue
		}
		if in, err = workers.ParseHandover(e.Data, e.Files); err != nil {
			return err
		}
	}
	fault.Point("new: has everything")
	err = nil
	if !m.pool.Prepared(n) { // the last moment to notice
		err = fmt.Errorf("generation %d did not stay ready", n)
	} else {
		err = m.pred.Accept()
	}
	if err != nil {
		if in != nil {
			in.Close()
		}
		return err
	}
	// From here on there is no way back: the predecessor is gone.
	fault.Point("new: heard go")
	m.took.Store(true)
	m.init.Tell(upgrade.NoticeHello)
	if in != nil {
		if err := m.pool.Adopt(in); err != nil {
			m.o.logger.Error("some workers of the old master could not be adopted", "reason", err.Error())
		}
	}
	m.upkeep.mu.Lock()
	if err := m.lock.Claim(); err != nil {
		m.o.logger.Warn("the lock names the old master", "reason", err.Error())
	}
	m.upkeep.mu.Unlock()
	m.scaled.Store(int64(m.pool.Override()))
	m.announce()
	fault.Point("new: took over")
	go m.cleanUpAfter(m.predPID)
	return nil
}

// cleanUpAfter removes what the predecessor, whose pid is given, cannot know
// to be of no use any more: files in places that this release has left.
func (m *master) cleanUpAfter(pid int) {
	ctx, cancel := context.WithTimeout(context.Background(), max(m.o.StopTimeout, upgradeMargin))
	defer cancel()
	if m.pred.Gone(ctx) != nil {
		return
	}
	m.herald.reclaim(ctx)
	m.store()
	if old := m.offer.PIDFile; old != "" && old != m.o.PIDFile {
		_ = rundir.RemovePIDFile(old, pid)
	}
	if old := m.offer.RuntimeDir; old != m.dir.Path() {
		if dir, err := rundir.Open(old); err == nil {
			if m.offer.MadeDir {
				dir.Inherit()
			}
			_ = dir.RemoveRecord()
			_ = dir.RemoveAdopt()
			_ = dir.Remove()
		}
	}
}
