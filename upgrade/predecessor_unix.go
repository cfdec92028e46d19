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
func (p *Predecessor) Accept() error {
	restore()
	if err := send(p.c, time.Now().Add(stepTimeout), message{typ: msgReceived}); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	if err := p.flip.Ready(); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	m, err := p.next(ctx)
	if err == nil {
		m.close()
		if m.typ == msgGo {
			return nil
		}
		return fmt.Errorf("take over: %w", errWire)
	}
	if errors.Is(err, ErrCancelled) {
		return err
	}
	// The socket ended without a word. Only the death of the predecessor, which
	// tableflip sees by a pipe of its own, makes its things ours.
	if perr := p.flip.WaitForParent(ctx); perr != nil {
		return fmt.Errorf("take over: %w", errors.Join(err, perr))
	}
	return nil
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
	_ = p.c.CloseWrite()
}
