package workers

// Bond is where a worker stands with its master.
type Bond int

// A worker that is bonded has a master, as far as it knows. An orphan has none,
// accepts for itself and looks for one. One that has resigned drains without a
// master; should one come before it is done, it is adopted as it is.
const (
	Bonded Bond = iota
	Orphan
	Resigned
)

var bonds = [...]string{"bonded", "orphan", "resigned"}

func (b Bond) String() string { return bonds[b] }

var bondMoves = map[Bond][]Bond{
	Bonded:   {Orphan, Resigned},
	Orphan:   {Bonded, Resigned},
	Resigned: {Bonded},
}
