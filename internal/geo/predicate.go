package geo

import (
	"fmt"

	"github.com/peterstace/simplefeatures/geom"
)

// maxWork bounds the product of the points of two geometries that are
// compared: so often may a point be looked for in the other.
const maxWork = 16 << 20

// Within tells whether no point of a lies outside of b and their interiors
// meet.
func Within(a, b []byte) (bool, error) { return Contains(b, a) }

// Contains tells whether no point of b lies outside of a and their interiors
// meet. A polygon does not contain its own boundary.
func Contains(a, b []byte) (bool, error) {
	return compare(a, b, geom.Envelope.Covers, func(a, b geom.Geometry) (bool, error) {
		if (a.IsPolygon() || a.IsMultiPolygon()) && b.IsPoint() { // the common case, and much cheaper
			return geom.Intersects(a, b) && !geom.Intersects(a.Boundary(), b), nil
		}
		return geom.Contains(a, b)
	})
}

// Intersects tells whether a and b have a point in common.
func Intersects(a, b []byte) (bool, error) {
	return compare(a, b, geom.Envelope.Intersects, func(a, b geom.Geometry) (bool, error) {
		return geom.Intersects(a, b), nil
	})
}

// compare decodes and checks two geometries. The cheap test of their
// envelopes, which holds wherever the exact one does, comes first.
func compare(a, b []byte, envelopes func(a, b geom.Envelope) bool, exact func(a, b geom.Geometry) (bool, error)) (ok bool, err error) {
	defer contain(&err)
	first, err := decode(a)
	if err != nil {
		return false, err
	}
	second, err := decode(b)
	if err != nil {
		return false, err
	}
	if !envelopes(first.Envelope(), second.Envelope()) {
		return false, nil
	}
	if err := first.validate(); err != nil {
		return false, err
	}
	if err := second.validate(); err != nil {
		return false, err
	}
	if pointsOf(a)*pointsOf(b) > maxWork {
		return false, fmt.Errorf("%w to compare", ErrTooLarge)
	}
	edges := append(first.edges, second.edges...)
	if err := checkPairs(edges, pairsToCompare+4*len(edges)); err != nil {
		return false, err
	}
	return exact(first.Geometry, second.Geometry)
}

// pointsOf bounds the number of points of WKB by its size.
func pointsOf(wkb []byte) int { return len(wkb)/16 + 1 }
