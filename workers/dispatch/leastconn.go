package dispatch

// LeastConnections returns a policy that picks the worker with the fewest
// connections, in turn among equals: for services whose connections live long,
// or cost very different amounts of work.
//
// What counts is Worker.Open. For the most part that is the worker's own word,
// and one that always says 0 would get everything. So no worker gets more than
// three connections one after the other while another has room: the next one
// goes to whoever has the fewest of the rest. A worker that lies, or fails so
// fast that it looks idle, gets three of four connections at most, and one that
// was just started is not flooded until it has caught up.
//
// Its name is least-connections.
func LeastConnections() Policy { return &leastConnections{} }

// maxRun is how many connections in a row a worker can get.
const maxRun = 3

type leastConnections struct {
	turns turns
	slot  int // that got the last connections
	run   int // how many
	rest  int // slot that had the last one of those that it did not get
}

func (*leastConnections) Name() string { return "least-connections" }
func (*leastConnections) ByOpen()      {}

func (p *leastConnections) Pick(c Conn, ws []Worker) int {
	last := p.turns.of(c.Listener)
	best := p.least(ws, *last, 0)
	if best < 0 {
		return -1
	}
	if ws[best].Slot == p.slot && p.run >= maxRun {
		// In a turn of their own: that of all begins anew behind p.slot each time.
		if other := p.least(ws, p.rest, p.slot); other >= 0 {
			best, p.rest = other, ws[other].Slot
		}
	}
	if ws[best].Slot != p.slot {
		p.slot, p.run = ws[best].Slot, 0
	}
	p.run++
	*last = p.slot
	return best
}

// least returns who has the fewest, and among equals the first slot after last;
// not is passed over. -1: nobody has room.
func (p *leastConnections) least(ws []Worker, last, not int) int {
	best := -1
	for i := range ws {
		if ws[i].Free <= 0 || not > 0 && ws[i].Slot == not {
			continue
		}
		if best < 0 || ws[i].Open < ws[best].Open ||
			ws[i].Open == ws[best].Open && ws[best].Slot <= last && ws[i].Slot > last {
			best = i
		}
	}
	return best
}
