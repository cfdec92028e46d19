//go:build unix

package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/baton-go/baton/internal/fault"
)

// Predecessor is the process that this one is about to replace.
type Predecessor struct {
	flip  *tableflip.Upgrader
	c     *net.UnixConn
	said  chan message
	lost  chan struct{} // the socket ended, or it cancelled
	wants error         // why, once lost is closed
}

// ErrCancelled: the predecessor goes on itself.
var ErrCancelled = errors.New("the predecessor has called the upgrade off")

func newPredecessor(flip *tableflip.Upgrader) (*Predecessor, error) {
	f, err := flip.File(handoverFile)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errors.New("the predecessor hands nothing over: it is no process of ours")
	}
	c, err := unixConn(f)
	if err != nil {
		return nil, err
	}
	p := &Predecessor{flip: flip, c: c, said: make(chan message, 1), lost: make(chan struct{})}
	go p.listen()
	return p, nil
}

func (p *Predecessor) listen() {
	defer close(p.lost)
	for {
		m, err := recv(p.c)
		if errors.Is(err, errWire) {
			p.wants = err
			return
		}
		if err != nil {
			p.wants = fmt.Errorf("the predecessor is gone: %w", err)
			return
		}
		if m.typ == msgCancel {
			p.wants = ErrCancelled
			return
		}
		p.said <- m
	}
}

func (p *Predecessor) next(ctx context.Context) (message, error) {
	select { // what was said before the end counts
	case m := <-p.said:
		return m, nil
	default:
	}
	select {
	case m := <-p.said:
		return m, nil
	case <-p.lost:
		select {
		case m := <-p.said:
			return m, nil
		default:
		}
		return message{}, p.wants
	case <-ctx.Done():
		return message{}, ctx.Err()
	}
}

// Offer returns what the predecessor gave this process to start with.
func (p *Predecessor) Offer() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	m, err := p.next(ctx)
	if err == nil && m.typ != msgOffer {
		m.close()
		err = errWire
	}
	if err != nil {
		return nil, fmt.Errorf("offer of the predecessor: %w", err)
	}
	return m.payload, nil
}

// Lost is closed when the predecessor is gone or has called the upgrade off.
func (p *Predecessor) Lost() <-chan struct{} { return p.lost }

// Prepared says that this process is ready, and returns what the predecessor
// hands over. It has stopped acting on it, and waits.
func (p *Predecessor) Prepared() ([]Entry, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	if err := send(p.c, time.Now().Add(stepTimeout), message{typ: msgPrepared, payload: []byte(strconv.Itoa(os.Getpid()))}); err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	var entries []Entry
	for {
		m, err := p.next(ctx)
		if err != nil {
			Close(entries)
			return nil, fmt.Errorf("handover: %w", err)
		}
		switch {
		case m.typ == msgEntry:
			owner, data, ok := bytes.Cut(m.payload, []byte{0})
			if ok {
				entries = append(entries, Entry{Owner: string(owner), Data: data, Files: m.files})
				continue
			}
		case m.typ == msgFiles && len(entries) > 0:
			e := &entries[len(entries)-1]
			e.Files = append(e.Files, m.files...)
			continue
		case m.typ == msgEnd:
			return entries, nil
		}
		m.close()
		Close(entries)
		return nil, fmt.Errorf("handover: %w", errWire)
	}
}

// Accept takes over. After nil the predecessor acts on nothing any more, and
// this process must; after an error it must end, for the predecessor goes on.
//
// From the moment that this process is ready the decision is the predecessor's,
// and is waited for without limit: one that was suspended must find it undecided.
func (p *Predecessor) Accept() error {
	restore()
	err := send(p.c, time.Now().Add(stepTimeout), message{typ: msgReceived})
	if err == nil {
		err = p.flip.Ready()
	}
	if err != nil {
		return p.inherit(err)
	}
	fault.Point("new: before go")
	m, err := p.next(context.Background())
	switch {
	case errors.Is(err, ErrCancelled):
		return err
	case err != nil:
		return p.inherit(err)
	case m.typ != msgGo:
		m.close()
		return fmt.Errorf("take over: %w", errWire)
	}
	// Should it not get this, it has died meanwhile.
	_ = send(p.c, time.Now().Add(stepTimeout), message{typ: msgTaken})
	return nil
}

// inherit takes over from a predecessor that seems to have died. Only its
// death, which tableflip sees by a pipe of its own, makes its things ours.
func (p *Predecessor) inherit(why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	if err := p.flip.WaitForParent(ctx); err != nil {
		return fmt.Errorf("take over: %w", errors.Join(why, err))
	}
	// It may have died after it had called the upgrade off and acted again.
	for {
		m, err := p.next(ctx)
		switch {
		case errors.Is(err, ErrCancelled) || errors.Is(err, context.DeadlineExceeded):
			return err
		case err != nil: // the end of all that it said
			// Nobody hears it, but without it tableflip refuses the next upgrade.
			_ = p.flip.Ready()
			return nil
		}
		m.close()
	}
}

// Gone waits until the predecessor's process has exited.
func (p *Predecessor) Gone(ctx context.Context) error { return p.flip.WaitForParent(ctx) }

// Refuse tells the predecessor why this process ends.
func (p *Predecessor) Refuse(reason string) {
	const limit = 16 << 10
	if len(reason) > limit {
		reason = reason[:limit] + " …"
	}
	_ = send(p.c, time.Now().Add(stepTimeout), message{typ: msgFailed, payload: []byte(reason)})
	_ = p.c.Close()
}
