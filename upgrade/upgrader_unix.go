//go:build unix

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/baton-go/baton/internal/fault"
)

// tableflip's own marker and the descriptors that come with it.
const (
	flipEnv    = "TABLEFLIP_HAS_PARENT_7DIU3"
	flipReady  = 3
	flipParent = 4

	handoverFile = "baton/handover"
)

// stepTimeout bounds each exchange of the handover itself; the new process'
// own start is bounded by Options.Timeout.
var stepTimeout = 10 * time.Second // tests wait less

// flipped says that tableflip started this process.
var flipped bool

// arrived is called when such a process has come as far as New.
var arrived = func() {}

// tableflip leaves its marker in the environment and its pipes inheritable: a
// program started by main would take itself for the new process.
func init() {
	if os.Getenv(flipEnv) == "" {
		return
	}
	os.Unsetenv(flipEnv)
	for fd := flipReady; fd <= flipParent; fd++ {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
			return // not for us: it came down from somebody who leaked it
		}
	}
	flipped = true
	redirect()
	syscall.CloseOnExec(flipReady)
	syscall.CloseOnExec(flipParent)
	arrived = forsaken(flipParent)
}

// Options of an Upgrader.
type Options struct {
	// Timeout is the time that a new process has from its start until it has
	// taken over; then it is killed.
	Timeout time.Duration

	// CancelTimeout is the time that it has to end when it is not wanted any
	// more; then it is killed. It needs it to end its own children.
	CancelTimeout time.Duration
}

// Upgrader can replace this process, once.
type Upgrader struct {
	flip   *tableflip.Upgrader
	pred   *Predecessor
	init   *Init
	cancel time.Duration
	kept   map[string]os.FileInfo // what was inherited, and is kept under the same name
}

// New returns the Upgrader of this process. Only one can be made.
func New(o Options) (*Upgrader, error) {
	if flipped {
		arrived()
		os.Setenv(flipEnv, "yes")
	}
	flip, err := tableflip.New(tableflip.Options{UpgradeTimeout: o.Timeout})
	os.Unsetenv(flipEnv)
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	u := &Upgrader{flip: flip, cancel: o.CancelTimeout, kept: map[string]os.FileInfo{}}
	if u.init, err = findInit(flip); err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	if flip.HasParent() {
		if u.pred, err = newPredecessor(flip); err != nil {
			return nil, fmt.Errorf("upgrade: %w", err)
		}
	}
	return u, nil
}

// Init returns the init of this container, which starts another process in the
// place of this one should it crash; nil if there is none.
func (u *Upgrader) Init() *Init { return u.init }

// Predecessor returns the process that this one is to replace, nil if it was
// started otherwise.
func (u *Upgrader) Predecessor() *Predecessor { return u.pred }

// Keep hands a duplicate of f to every new process, under that name.
func (u *Upgrader) Keep(name string, f *os.File) error {
	// tableflip keeps what was inherited, and would forget to close it if it
	// were given another: then a socket would stay open after Stop.
	if was := u.kept[name]; was != nil {
		if info, err := f.Stat(); err == nil && os.SameFile(was, info) {
			return nil
		}
	}
	if err := u.flip.AddFile(name, f); err != nil {
		return fmt.Errorf("upgrade: keep %s: %w", name, err)
	}
	return nil
}

// Inherit returns the file that the predecessor kept under that name, nil if
// there is none. It is kept for the next process, too. What nobody inherits is
// closed once this process is ready.
func (u *Upgrader) Inherit(name string) (*os.File, error) {
	f, err := u.flip.File(name)
	if err != nil {
		return nil, fmt.Errorf("upgrade: inherit %s: %w", name, err)
	}
	if f != nil {
		if info, err := f.Stat(); err == nil {
			u.kept[name] = info
		}
	}
	return f, nil
}

// Ready says that this process, which has no predecessor, can be replaced.
func (u *Upgrader) Ready() error { return u.flip.Ready() }

// Stop makes a waiting Upgrade fail and refuses later ones, and gives up what
// was kept for them.
func (u *Upgrader) Stop() {
	u.flip.Stop()
	<-u.flip.Exit() // its goroutine has seen it, and closed what was kept
}

// Handover is what the old process brings to an upgrade.
type Handover struct {
	Offer  []byte                  // given to the new process at its start
	Freeze func() ([]Entry, error) // stop acting on what is handed over, and describe it
	Thaw   func()                  // act on it again: the upgrade failed after Freeze
	Hurry  <-chan struct{}         // closed when a new process that is cancelled must not be waited for; may be nil
}

// Upgrade starts the binary on disk and hands over to it. After a nil error
// this process must exit, touching nothing it has handed over; what it is still
// asked for it can pass on to the successor. After an error it goes on as
// before; but when ctx has ended, later upgrades may be refused.
func (u *Upgrader) Upgrade(ctx context.Context, h Handover) (successor *os.Process, err error) {
	c, theirs, err := pair()
	if err != nil {
		return nil, &RefusedError{Reason: err.Error(), Err: err}
	}
	defer c.Close()
	err = u.flip.AddFile(handoverFile, theirs)
	theirs.Close()
	if err != nil {
		return nil, &RefusedError{Reason: err.Error(), Err: err}
	}
	if err := send(c, time.Now().Add(stepTimeout), message{typ: msgOffer, payload: h.Offer}); err != nil {
		return nil, &RefusedError{Reason: err.Error(), Err: err}
	}
	written, err := newCapture()
	if err != nil {
		return nil, &RefusedError{Reason: err.Error(), Err: err}
	}
	flip := make(chan error, 1)
	go func() { flip <- u.start() }()
	successor, err = (&handing{c: c, flip: flip, h: h, cancelTime: u.cancel, stop: u.flip.Stop}).run(ctx)
	tail := written.close()
	var refused *RefusedError
	if errors.As(err, &refused) {
		refused.Stderr = tail
	}
	return successor, err
}

// start runs tableflip's upgrade. tableflip learns of what happened to this
// process in random order: right after Ready, or after the predecessor's end,
// it may still say that this is to come.
func (u *Upgrader) start() error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := u.flip.Upgrade()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if s := err.Error(); s != "process is not ready yet" && s != "parent hasn't exited" {
			return err
		}
	}
}

// handing is one upgrade, seen from the old process.
type handing struct {
	c    *net.UnixConn
	flip chan error // tableflip's verdict
	h    Handover

	successor  *os.Process // nil until it has said that it is ready
	cancelTime time.Duration
	stop       func() // kills a new process that has said nothing, and refuses later ones
}

func (u *handing) run(ctx context.Context) (*os.Process, error) {
	said := make(chan message) // closed at the end of the socket
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		defer close(said)
		for {
			m, err := recv(u.c)
			if err != nil {
				return
			}
			m.close()
			select {
			case said <- m:
			case <-ended:
				return
			}
		}
	}()

	reason := ""
	var late <-chan time.Time
	hears := said
	for frozen := false; ; {
		select {
		case err := <-u.flip:
			if err == nil {
				if frozen && reason == "" {
					err = u.let(said)
				} else {
					err = errors.New("the new process became ready without taking over")
					_ = send(u.c, time.Now().Add(stepTimeout), message{typ: msgCancel})
				}
				if err == nil {
					return u.successor, nil
				}
			}
			if frozen {
				u.h.Thaw()
			}
			// It may have said why, and died faster than that was read.
			_ = u.c.CloseRead()
			for m := range said {
				if m.typ == msgFailed {
					reason = string(m.payload)
				}
			}
			if reason == "" {
				reason = err.Error()
			}
			return nil, &RefusedError{Reason: reason, Err: err}

		case m, ok := <-hears:
			if !ok {
				hears = nil // its exit says the rest
				continue
			}
			switch m.typ {
			case msgFailed:
				reason = string(m.payload)
			case msgPrepared:
				if frozen {
					continue
				}
				frozen = true
				// It is our child and not waited for yet, so its pid names it.
				if pid, err := strconv.Atoi(string(m.payload)); err == nil {
					u.successor, _ = os.FindProcess(pid)
				}
				if err := u.give(); err != nil {
					return nil, u.cancel(fmt.Sprintf("hand over: %v", err), err, frozen)
				}
				fault.Point("old: handed over")
				late = time.After(stepTimeout) // nobody accepts meanwhile
			}

		case <-late:
			err := fmt.Errorf("the new process did not take over within %v", stepTimeout)
			return nil, u.cancel(err.Error(), err, frozen)

		case <-ctx.Done():
			return nil, u.cancel(context.Cause(ctx).Error(), context.Cause(ctx), frozen)
		}
	}
}

// let tells the new process to act, and waits until it says that it does: one
// that dies in this very moment must not leave the service to nobody.
func (u *handing) let(said <-chan message) error {
	fault.Point("old: before go")
	if err := send(u.c, time.Now().Add(stepTimeout), message{typ: msgGo}); err != nil {
		return err
	}
	fault.Point("old: said go")
	late := time.After(stepTimeout)
	for {
		select {
		case m, ok := <-said:
			if !ok {
				return errSpent
			}
			if m.typ == msgTaken {
				return nil
			}
		case <-late:
			// It may yet read what it was told. Dead, it does not.
			u.kill()
			late = nil
		}
	}
}

var errSpent = errors.New("the new process died while it took over; this one goes on, but has to be restarted to be upgraded")

// give freezes and sends the entries.
func (u *handing) give() error {
	entries, err := u.h.Freeze()
	defer Close(entries)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(stepTimeout)
	for _, e := range entries {
		payload := append([]byte(e.Owner+"\x00"), e.Data...)
		first := true
		for chunk := range slices.Chunk(e.Files, maxFiles) {
			m := message{typ: msgFiles, files: chunk}
			if first {
				m.typ, m.payload = msgEntry, payload
			}
			first = false
			if err := send(u.c, deadline, m); err != nil {
				return err
			}
		}
		if first {
			if err := send(u.c, deadline, message{typ: msgEntry, payload: payload}); err != nil {
				return err
			}
		}
	}
	return send(u.c, deadline, message{typ: msgEnd})
}

// cancelSend bounds the wait for room in the socket to a new process that does
// not read.
const cancelSend = 500 * time.Millisecond

// cancel tells the new process to end, thaws, and waits until it has ended:
// tableflip can start the next one only then.
//
// It is told first. Should this process die after it has thawed, the new one
// must not find a handover that is complete, and take over by what is no longer
// true. One that cannot be told is killed.
func (u *handing) cancel(reason string, err error, frozen bool) error {
	if send(u.c, time.Now().Add(cancelSend), message{typ: msgCancel}) != nil {
		u.kill()
	}
	_ = u.c.CloseWrite()
	if frozen {
		u.h.Thaw()
	}
	var ferr error
	select {
	case ferr = <-u.flip:
	case <-u.h.Hurry:
		u.kill()
		ferr = <-u.flip
	case <-time.After(u.cancelTime):
		u.kill()
		ferr = <-u.flip
	}
	if ferr == nil {
		// It was ready in the same moment; it reads the cancellation and ends.
		reason += " (the new process had just become ready)"
	}
	return &RefusedError{Reason: reason, Err: err}
}

// kill ends a new process that does not listen. tableflip tells nobody which
// one that is, and kills it itself only with the end of all upgrades: as long
// as the new process has not told its pid, that is the end of ctx.
func (u *handing) kill() {
	if u.successor == nil {
		u.stop()
		return
	}
	_ = u.successor.Kill()
}
