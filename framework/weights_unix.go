//go:build unix

package framework

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/baton-go/baton/internal/control"
)

// weigh changes shares of the connections, for as long as the generation that
// serves does.
func (m *master) weigh(weights map[int]int) control.Verdict {
	v := control.Verdict{Action: control.ActionWeight}
	all, err := m.pool.SetWeights(weights)
	if err != nil {
		v.Reason = err.Error()
		return v
	}
	var shares []string
	for _, slot := range slices.Sorted(maps.Keys(all)) {
		shares = append(shares, fmt.Sprintf("%d=%d", slot, all[slot]))
	}
	v.OK, v.Reason = true, "weights "+strings.Join(shares, " ")+", until the next generation serves"
	m.o.logger.Info("weighted", "weights", strings.Join(shares, " "))
	return v
}
