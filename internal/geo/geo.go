// Package geo stores and compares plane geometries.
//
// A geometry is kept as well-known binary (WKB): ISO, little endian, without a
// spatial reference. [FromWKT] and [FromGeoJSON] make one of what clients
// send, [AppendGeoJSON] and [AppendWKT] turn it back, [Within], [Intersects]
// and [Contains] compare two. Functions that read WKB also take big-endian
// and extended WKB (as PostGIS and SpatiaLite tools write it) and ignore the
// spatial reference of the latter.
//
// Input may be hostile: it is at most [MaxSize] bytes with at most [MaxPoints]
// positions, collections nest at most [MaxDepth] deep, and coordinates are
// finite. Results are valid in the sense of the OGC: closed rings that do not
// cross, holes inside their shell.
//
// All functions are safe for concurrent use.
package geo

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/peterstace/simplefeatures/geom"
)

// Limits of a geometry.
const (
	MaxSize   = 1 << 20 // bytes, of every encoding
	MaxPoints = 100_000
	MaxDepth  = 16 // of collections in each other
)

// ErrTooLarge is wrapped by the error about a geometry, or a pair of them,
// that is beyond the limits.
var ErrTooLarge = errors.New("geometry too large")

// FromWKT returns the geometry that well-known text describes, for example
// "POINT (12.5 41.9)".
func FromWKT(text string) (wkb []byte, err error) {
	defer contain(&err)
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSize)
	}
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth > MaxDepth+4 { // a multipolygon has 3 levels
			return nil, fmt.Errorf("%w: nested deeper than %d collections", ErrTooLarge, MaxDepth)
		}
	}
	g, err := geom.UnmarshalWKT(text, geom.NoValidate{})
	if err != nil {
		return nil, fmt.Errorf("parse WKT: %w", err)
	}
	return encode(g)
}

// FromGeoJSON returns the geometry of a GeoJSON geometry object. Features and
// feature collections are refused, and so is null, also as a member.
func FromGeoJSON(object []byte) (wkb []byte, err error) {
	defer contain(&err)
	if len(object) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSize)
	}
	if err := checkGeoJSON(object); err != nil {
		return nil, err
	}
	g, err := geom.UnmarshalGeoJSON(object, geom.NoValidate{})
	if err != nil {
		return nil, fmt.Errorf("parse GeoJSON: %w", err)
	}
	return encode(g)
}

// checkGeoJSON bounds the depth of object and refuses null, which the parser
// would take for zero.
func checkGeoJSON(object []byte) error {
	if !json.Valid(object) {
		return errors.New("parse GeoJSON: not JSON")
	}
	depth, quoted := 0, false
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == 'n':
			return errors.New("parse GeoJSON: null is not a geometry")
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth > 2*MaxDepth+5 { // a multipolygon has 5 levels
			return fmt.Errorf("%w: nested deeper than %d collections", ErrTooLarge, MaxDepth)
		}
	}
	return nil
}

// AppendGeoJSON appends the GeoJSON geometry object of wkb to dst. Measures
// (M) are left out. It does not check that the geometry is valid.
func AppendGeoJSON(dst, wkb []byte) (object []byte, err error) {
	defer contain(&err)
	s, err := decode(wkb)
	if err != nil {
		return nil, err
	}
	text, err := s.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write GeoJSON: %w", err)
	}
	return append(dst, text...), nil
}

// AppendWKT appends the well-known text of wkb to dst. It does not check that
// the geometry is valid.
func AppendWKT(dst, wkb []byte) (text []byte, err error) {
	defer contain(&err)
	s, err := decode(wkb)
	if err != nil {
		return nil, err
	}
	return s.AppendWKT(dst), nil
}

// Valid tells whether wkb is a valid geometry.
func Valid(wkb []byte) bool { return check(wkb) == nil }

func check(wkb []byte) (err error) {
	defer contain(&err)
	s, err := decode(wkb)
	if err != nil {
		return err
	}
	return s.validate()
}

// shape is a decoded geometry, not yet known to be valid.
type shape struct {
	geom.Geometry
	edges []box
}

func (s shape) validate() error {
	if err := checkPairs(s.edges, pairsToCheck); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return fmt.Errorf("invalid geometry: %w", err)
	}
	return nil
}

// encode returns the stored form of a geometry after checking it.
func encode(g geom.Geometry) ([]byte, error) {
	wkb, edges, err := normalize(g.AsBinary())
	if err != nil {
		return nil, err
	}
	if err := (shape{g, edges}).validate(); err != nil {
		return nil, err
	}
	return wkb, nil
}

func decode(wkb []byte) (shape, error) {
	wkb, edges, err := normalize(wkb)
	if err != nil {
		return shape{}, err
	}
	g, err := geom.UnmarshalWKB(wkb, geom.NoValidate{})
	return shape{g, edges}, err
}

// contain turns a panic of the geometry library into an error.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("geometry: %v", p)
	}
}
