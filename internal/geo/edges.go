package geo

import (
	"cmp"
	"fmt"
	"slices"
)

// Checking and comparing geometries takes time in proportion to the pairs of
// edges that come near each other. An honest map has a few such pairs for each
// edge, a comb of long slanted teeth has all of them. So they are counted
// before the work begins.
const (
	pairsToCheck   = 4 << 20  // an edge against others of its own geometry
	pairsToCompare = 32 << 10 // and four for each edge
	sweepSteps     = 32 << 20
)

// box is the envelope of an edge.
type box struct{ minX, minY, maxX, maxY float64 }

func edgeBox(x0, y0, x1, y1 float64) box {
	return box{min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)}
}

// checkPairs returns an error if more than limit pairs of edges have envelopes
// that overlap, or if it is expensive to find out. It sorts the edges.
func checkPairs(edges []box, limit int) error {
	if len(edges)*len(edges) <= limit {
		return nil
	}
	slices.SortFunc(edges, func(a, b box) int { return cmp.Compare(a.minX, b.minX) })
	pairs, steps := 0, 0
	for i, a := range edges {
		for _, b := range edges[i+1:] {
			if b.minX > a.maxX {
				break
			}
			steps++
			if a.minY <= b.maxY && b.minY <= a.maxY {
				pairs++
			}
			if pairs > limit || steps > sweepSteps {
				return fmt.Errorf("%w: too many edges overlap", ErrTooLarge)
			}
		}
	}
	return nil
}
