package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Geometry types of WKB.
const (
	point = 1 + iota
	lineString
	polygon
	multiPoint
	multiLineString
	multiPolygon
	collection
)

// Flags of extended WKB in the type.
const (
	flagZ    = 0x80000000
	flagM    = 0x40000000
	flagSRID = 0x20000000
)

var errWKB = errors.New("not well-known binary")

// normalize checks the structure of WKB without trusting any count in it and
// returns it as ISO WKB, little endian, with the envelopes of its edges. Memory
// is in proportion to the input's size. What it returns is not necessarily a
// valid geometry.
func normalize(wkb []byte) (iso []byte, edges []box, err error) {
	if len(wkb) > MaxSize {
		return nil, nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSize)
	}
	n := normalizer{in: wkb, out: make([]byte, 0, len(wkb))}
	if err := n.geometry(0, 0, -1); err != nil {
		return nil, nil, err
	}
	if len(n.in) > 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes too many", errWKB, len(n.in))
	}
	return n.out, n.edges, nil
}

type normalizer struct {
	in     []byte // what is left
	out    []byte
	order  binary.ByteOrder
	points int
	edges  []box
}

// geometry copies one geometry of type want, or of any if it is zero, with the
// dimension wantDim, or any if it is negative.
func (n *normalizer) geometry(depth int, want uint32, wantDim int) error {
	if depth > MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d collections", ErrTooLarge, MaxDepth)
	}
	kind, dim, err := n.header()
	if err != nil {
		return err
	}
	if want != 0 && kind != want || wantDim >= 0 && dim != wantDim {
		return fmt.Errorf("%w: a part of another type than the whole", errWKB)
	}
	ordinates := [...]int{2, 3, 3, 4}[dim]
	switch kind {
	case point:
		return n.positions(1, ordinates, true)
	case lineString:
		return n.line(ordinates)
	case polygon:
		return n.each(4, func() error { return n.line(ordinates) })
	case multiPoint:
		return n.each(5, func() error { return n.geometry(depth+1, point, dim) })
	case multiLineString:
		return n.each(5, func() error { return n.geometry(depth+1, lineString, dim) })
	case multiPolygon:
		return n.each(5, func() error { return n.geometry(depth+1, polygon, dim) })
	case collection:
		return n.each(5, func() error { return n.geometry(depth+1, 0, dim) })
	}
	return fmt.Errorf("%w: unknown type %d", errWKB, kind)
}

// header copies byte order and type. The dimension is 0 for XY, 1 for XYZ, 2
// for XYM, 3 for XYZM.
func (n *normalizer) header() (kind uint32, dim int, err error) {
	if len(n.in) < 5 {
		return 0, 0, errWKB
	}
	switch n.in[0] {
	case 0:
		n.order = binary.BigEndian
	case 1:
		n.order = binary.LittleEndian
	default:
		return 0, 0, fmt.Errorf("%w: byte order %d", errWKB, n.in[0])
	}
	code := n.order.Uint32(n.in[1:])
	n.in = n.in[5:]
	if code&flagZ != 0 {
		dim |= 1
	}
	if code&flagM != 0 {
		dim |= 2
	}
	if code&flagSRID != 0 {
		if len(n.in) < 4 {
			return 0, 0, errWKB
		}
		n.in = n.in[4:]
	}
	if code &^= flagZ | flagM | flagSRID; code >= 1000 {
		if dim != 0 || code >= 4000 {
			return 0, 0, fmt.Errorf("%w: type code %d", errWKB, code)
		}
		dim = int(code / 1000)
	}
	kind = code % 1000
	n.out = append(n.out, 1)
	n.out = binary.LittleEndian.AppendUint32(n.out, uint32(dim)*1000+kind)
	return kind, dim, nil
}

// each copies a count and as many parts, of at least size bytes.
func (n *normalizer) each(size int, part func() error) error {
	count, err := n.count(size)
	if err != nil {
		return err
	}
	order := n.order // a part may have another, which ends with it
	for range count {
		if err := part(); err != nil {
			return err
		}
		n.order = order
	}
	return nil
}

func (n *normalizer) line(ordinates int) error {
	count, err := n.count(8 * ordinates)
	if err != nil {
		return err
	}
	return n.positions(count, ordinates, false)
}

// count copies the number of parts that follow, of at least size bytes each.
func (n *normalizer) count(size int) (int, error) {
	if len(n.in) < 4 {
		return 0, errWKB
	}
	count := n.order.Uint32(n.in)
	n.in = n.in[4:]
	if uint64(count)*uint64(size) > uint64(len(n.in)) {
		return 0, fmt.Errorf("%w: cut short", errWKB)
	}
	n.out = binary.LittleEndian.AppendUint32(n.out, count)
	return int(count), nil
}

// positions copies coordinates. A single position may be empty: not a number.
func (n *normalizer) positions(count, ordinates int, empty bool) error {
	if len(n.in) < 8*count*ordinates {
		return fmt.Errorf("%w: cut short", errWKB)
	}
	if n.points += count; n.points > MaxPoints {
		return fmt.Errorf("%w: more than %d points", ErrTooLarge, MaxPoints)
	}
	if empty {
		x, y := n.ordinate(0), n.ordinate(1)
		empty = math.IsNaN(x) && math.IsNaN(y)
	}
	for i := range count * ordinates {
		v := n.ordinate(i)
		switch {
		case empty:
			v = math.NaN()
		case math.IsNaN(v) || math.IsInf(v, 0):
			return errors.New("a coordinate is not a finite number")
		}
		n.out = binary.LittleEndian.AppendUint64(n.out, math.Float64bits(v))
	}
	for i := 1; i < count; i++ {
		from, to := (i-1)*ordinates, i*ordinates
		n.edges = append(n.edges, edgeBox(n.ordinate(from), n.ordinate(from+1), n.ordinate(to), n.ordinate(to+1)))
	}
	n.in = n.in[8*count*ordinates:]
	return nil
}

func (n *normalizer) ordinate(i int) float64 {
	return math.Float64frombits(n.order.Uint64(n.in[8*i:]))
}
