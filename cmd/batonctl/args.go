package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/baton-go/baton/internal/control"
)

// negativeLast makes the -1 of "scale -1" an argument instead of a flag: it
// moves it to the end, behind a "--", so that flags may follow it.
func negativeLast(args []string) []string {
	cmd := slices.Index(args, "scale")
	if cmd < 0 || slices.Contains(args, "--") {
		return args
	}
	for i := cmd + 1; i < len(args); i++ {
		digits, minus := strings.CutPrefix(args[i], "-")
		if minus && digits != "" && strings.Trim(digits, "0123456789") == "" {
			rest := slices.Delete(slices.Clone(args), i, i+1)
			return append(rest, "--", args[i])
		}
	}
	return args
}

// parseCount reads N, +N or -N.
func parseCount(s string) (control.ScaleRequest, error) {
	n, err := strconv.Atoi(s)
	signed := strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-")
	switch {
	case errors.Is(err, strconv.ErrRange):
		return control.ScaleRequest{}, fmt.Errorf("scale: %q is out of range", s)
	case err != nil, signed && n == 0:
		return control.ScaleRequest{}, fmt.Errorf("scale: %q, expected a number of workers, or +N or -N", s)
	case signed:
		return control.ScaleRequest{Delta: n}, nil
	case n < 1:
		return control.ScaleRequest{}, fmt.Errorf("scale: %d workers, expected 1 or more", n)
	}
	return control.ScaleRequest{Workers: &n}, nil
}

// parseWeights reads SLOT=W, once for a slot.
func parseWeights(args []string) (control.WeightRequest, error) {
	weights := map[int]int{}
	for _, s := range args {
		slot, weight, ok := strings.Cut(s, "=")
		n, err := strconv.Atoi(slot)
		w, werr := strconv.Atoi(weight)
		if !ok || err != nil || werr != nil || n < 1 || w < 0 {
			return control.WeightRequest{}, fmt.Errorf("weight: %q, expected SLOT=W, as in 1=3", s)
		}
		if _, twice := weights[n]; twice {
			return control.WeightRequest{}, fmt.Errorf("weight: %q, expected one weight for a slot", s)
		}
		weights[n] = w
	}
	return control.WeightRequest{Weights: weights}, nil
}
