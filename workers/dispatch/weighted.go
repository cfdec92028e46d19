package dispatch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Weighted returns a policy that gives each slot connections in proportion to
// its weight, and spreads them: with weights 5, 1 and 1 the order is a a b a c a
// a and not five times a first. The algorithm is nginx's smooth weighted
// round-robin (src/http/ngx_http_upstream_round_robin.c, by Maxim Dounin): in
// each round everybody gains its weight, the one that has most is picked and
// pays what all gained. Every listener has rounds of its own.
//
// The first weight is that of slot 1, and so on; slots without one have 1. All
// are from 0 to MaxWeight. A worker with weight 0 gets nothing as long as one
// with another weight has room: no connection waits while somebody could take
// it. If all that have room have weight 0, they count as equal. An operator can
// change weights while the service runs.
//
// Its name is weighted, or with weights as in weighted:3,1.
func Weighted(weights ...int) Policy {
	name, separator := nameWeighted, ":"
	for _, w := range weights {
		name += separator + strconv.Itoa(w)
		separator = ","
	}
	return &weighted{name: name, initial: slices.Clone(weights)}
}

const nameWeighted = "weighted"

type weighted struct {
	name    string
	initial []int
	rounds  [][]balance // by listener and slot
}

// balance is what a slot has gained and not paid for.
type balance struct{ weight, gained int }

func (p *weighted) Name() string { return p.name }

func (p *weighted) Weight(slot int) int {
	if slot < 1 || slot > len(p.initial) {
		return 1
	}
	return p.initial[slot-1]
}

func (p *weighted) Pick(c Conn, ws []Worker) int {
	for len(p.rounds) <= c.Listener {
		p.rounds = append(p.rounds, nil)
	}
	round := &p.rounds[c.Listener]
	zero := true // whoever has room has weight 0
	for i := range ws {
		zero = zero && (ws[i].Free <= 0 || ws[i].Weight <= 0)
		for len(*round) <= ws[i].Slot {
			*round = append(*round, balance{})
		}
		// What was gained with other weights could take as long to pay off as
		// they were large.
		if b := &(*round)[ws[i].Slot]; b.weight != ws[i].Weight {
			b.weight = ws[i].Weight
			for slot := range *round {
				(*round)[slot].gained = 0
			}
		}
	}
	best, most, total := -1, 0, 0
	for i := range ws {
		weight := ws[i].Weight
		if zero {
			weight = 1
		}
		if ws[i].Free <= 0 || weight <= 0 {
			continue
		}
		b := &(*round)[ws[i].Slot]
		b.gained += weight
		total += weight
		if best < 0 || b.gained > most {
			best, most = i, b.gained
		}
	}
	if best >= 0 {
		(*round)[ws[best].Slot].gained -= total
	}
	return best
}

func parseWeighted(parameters string, given bool) (Policy, error) {
	if !given {
		return Weighted(), nil
	}
	var weights []int
	for text := range strings.SplitSeq(parameters, ",") {
		w, err := strconv.Atoi(text)
		if err != nil || w < 0 || w > MaxWeight {
			return nil, fmt.Errorf("expected %s:W,W,... with weights from 0 to %d", nameWeighted, MaxWeight)
		}
		weights = append(weights, w)
	}
	return Weighted(weights...), nil
}
