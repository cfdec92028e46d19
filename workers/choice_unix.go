//go:build unix

package workers

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/baton-go/baton/workers/dispatch"
)

// choice is whom the dispatcher sends connections to: what a policy says, as far
// as it can be believed. The dispatcher's lock guards it, buffers for system
// calls included, which would be allocated for each call otherwise.
type choice struct {
	policy   dispatch.Policy
	name     string
	weights  map[int]int       // that an operator has set, by slot
	views    []dispatch.Worker // what the policy sees of the targets
	byClient bool
	byOpen   bool
	byWeight bool
	counted  time.Time       // when workers were last asked what they have open
	instead  dispatch.Policy // where the policy's answer is of no use
	accused  bool            // that has been told
	failed   func(PolicyFailed)
	remote   remote
	counter  [8]byte
}

func newChoice(p dispatch.Policy) choice {
	c := choice{instead: dispatch.RoundRobin(), failed: func(PolicyFailed) {}}
	c.use(p)
	return c
}

func (c *choice) use(p dispatch.Policy) {
	c.policy, c.name, c.accused = p, p.Name(), false
	_, c.byClient = p.(dispatch.ByClient)
	_, c.byOpen = p.(dispatch.ByOpen)
	_, c.byWeight = p.(dispatch.ByWeight)
}

// rule is by what a generation's connections are dispatched.
type rule struct {
	policy  dispatch.Policy // nil: the one that there is
	weights map[int]int     // that an operator has set, by slot
}

// follow obeys r, for the targets that there are now. Called locked.
func (d *dispatcher) follow(r rule) {
	c := &d.choice
	if r.policy != nil {
		c.use(r.policy)
	}
	c.weights, c.counted = r.weights, time.Time{}
	c.views = make([]dispatch.Worker, len(d.targets))
	d.weigh()
}

// weigh gives the targets their weights. Called locked.
func (d *dispatcher) weigh() {
	for _, w := range d.targets {
		w.weight = 1
	}
	defer d.survive()
	for _, w := range d.targets {
		w.weight = d.weightOf(w.slot)
	}
}

func (d *dispatcher) weightOf(slot int) int {
	c, weight := &d.choice, 1
	if p, ok := c.policy.(dispatch.ByWeight); ok {
		weight = p.Weight(slot)
	}
	if set, ok := c.weights[slot]; ok {
		weight = set
	}
	return min(max(weight, 0), dispatch.MaxWeight)
}

// countFor is how long what workers say they have open is gone by: a busy master
// would spend more on asking than on sending. What it sends meanwhile is added.
const countFor = time.Millisecond

// look brings up to date what the policy sees. Called locked.
func (d *dispatcher) look(now time.Time) {
	c := &d.choice
	fresh := c.byOpen && now.Sub(c.counted) < countFor
	if c.byOpen && !fresh {
		c.counted = now
	}
	for i, w := range d.targets {
		open := c.views[i].Open
		if !fresh {
			open = len(w.unacked) + len(w.batch) + d.openIn(w)
		}
		c.views[i] = dispatch.Worker{Slot: w.slot, Free: w.free(now), Open: open, Weight: w.weight}
	}
}

// openIn is what w's worker says it has open, if the policy wants to know.
// Called locked.
func (d *dispatcher) openIn(w *window) int {
	c := &d.choice
	if !c.byOpen || w.page == nil {
		return 0
	}
	if n, _ := w.page.ReadAt(c.counter[:], pageOpen); n < len(c.counter) {
		return 0
	}
	return int(counted(int64(binary.NativeEndian.Uint64(c.counter[:]))))
}

// choose returns the window that h goes to, nil if none has room. Called locked.
func (d *dispatcher) choose(h *held, now time.Time) *window {
	c := &d.choice
	conn := dispatch.Conn{Listener: int(h.listener), ID: h.id}
	if c.byClient {
		conn.Client = c.remote.of(h.fd)
	}
	i, answered := d.ask(conn)
	if !d.hasRoom(i, now) {
		if !slices.ContainsFunc(d.targets, func(w *window) bool { return w.free(now) > 0 }) {
			return nil
		}
		if answered {
			d.accuse(PolicyFailed{Reason: "it picks nobody, or somebody without room, while others have room"})
		}
		d.look(now) // the policy may have written into it
		if i = c.instead.Pick(conn, c.views); !d.hasRoom(i, now) {
			return nil
		}
	}
	c.views[i].Free--
	c.views[i].Open++
	return d.targets[i]
}

// hasRoom goes by the window itself, and not by what the policy was shown: it
// must not be able to overfill one.
func (d *dispatcher) hasRoom(i int, now time.Time) bool {
	return i >= 0 && i < len(d.targets) && d.targets[i].free(now) > 0
}

// ask asks the policy; no answer is a panic. Called locked.
func (d *dispatcher) ask(conn dispatch.Conn) (i int, answered bool) {
	i = -1
	defer d.survive()
	return d.choice.policy.Pick(conn, d.choice.views), true
}

// survive ends a panic of the policy, and the policy's service. It is to be
// deferred.
func (d *dispatcher) survive() {
	why := recover()
	if why == nil {
		return
	}
	d.choice.accused = false // of something else, perhaps
	d.accuse(PolicyFailed{Reason: fmt.Sprintf("it panics: %v", why), Stack: string(debug.Stack())})
	d.choice.use(d.choice.instead)
}

// accuse tells once what is wrong with a policy. Called locked.
func (d *dispatcher) accuse(e PolicyFailed) {
	if c := &d.choice; !c.accused {
		c.accused = true
		e.Policy = c.name
		c.failed(e)
	}
}
