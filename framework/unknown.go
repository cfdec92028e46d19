package framework

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Names that begin with BATON_ are not all ours: an application may be called so.
// What looks like one of ours with a slip in it is worth a warning, no more.

const variablePrefix = "BATON_"

// unknownVariables has a line for each variable that is nearly one of ours.
func (o *options) unknownVariables() (lines []string) {
	known := []string{envFileVar.variable()}
	for _, v := range variables {
		known = append(known, v.variable())
	}
	for _, name := range slices.Sorted(maps.Keys(o.env)) {
		if _, says := o.env.lookup(name); !says || !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) {
			continue
		}
		if near := nearest(name, known); near != "" {
			lines = append(lines, fmt.Sprintf("%s%s is no variable of Baton's and has no effect: is %s meant?", name, o.inFile(name), near))
		}
	}
	return lines
}

// nearest is what name was likely meant to be, "" if it is far from all of known.
// Slips are a letter or two, more in a long name, or where an underscore belongs.
func nearest(name string, known []string) (near string) {
	bare := func(s string) string { return strings.ReplaceAll(s, "_", "") }
	best := 1 + len(bare(name)[len(bare(variablePrefix)):])/6
	for _, k := range known {
		if d := slips(bare(name), bare(k)); d <= best {
			near, best = k, d-1
		}
	}
	return near
}

// slips counts the letters that are missing, too many, wrong, or changed places
// with the next.
func slips(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			wrong := 1
			if a[i] == b[j] {
				wrong = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+wrong)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
