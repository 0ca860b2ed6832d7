package sqlite

import (
	"errors"
	"fmt"

	"github.com/bedplate/bedplate/internal/geo"
)

func geoFunctions() []function {
	return []function{
		{"ST_IsValid", 1, true, stIsValid},
		{"ST_GeomFromText", 1, true, stGeomFromText},
		{"ST_GeomFromText", 2, true, stGeomFromText},
		{"ST_AsText", 1, true, stAsText},
		{"ST_AsGeoJSON", 1, true, stAsGeoJSON},
		{"ST_Within", 2, true, predicate("ST_Within", geo.Within)},
		{"ST_Intersects", 2, true, predicate("ST_Intersects", geo.Intersects)},
		{"ST_Contains", 2, true, predicate("ST_Contains", geo.Contains)},
	}
}

// stIsValid tells whether a BLOB is a valid geometry; NULL is.
func stIsValid(out *result, args []value) error {
	wkb, ok := args[0].blob()
	out.setBool(args[0].isNull() || ok && geo.Valid(wkb))
	return nil
}

// stGeomFromText parses well-known text. The second argument, a spatial
// reference, must be an integer and is not stored.
func stGeomFromText(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	text, ok := args[0].text()
	if !ok {
		return errors.New("ST_GeomFromText: not text")
	}
	if len(args) > 1 {
		if _, ok := args[1].int64(); !ok {
			return errors.New("ST_GeomFromText: the spatial reference is not an integer")
		}
	}
	wkb, err := geo.FromWKT(string(text))
	if err != nil {
		return fmt.Errorf("ST_GeomFromText: %w", err)
	}
	out.setBlob(wkb)
	return nil
}

func stAsText(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	wkb, ok := args[0].blob()
	if !ok {
		return errors.New("ST_AsText: not a geometry")
	}
	text, err := geo.AppendWKT(nil, wkb)
	if err != nil {
		return fmt.Errorf("ST_AsText: %w", err)
	}
	out.setText(text)
	return nil
}

func stAsGeoJSON(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	wkb, ok := args[0].blob()
	if !ok {
		return errors.New("ST_AsGeoJSON: not a geometry")
	}
	object, err := geo.AppendGeoJSON(nil, wkb)
	if err != nil {
		return fmt.Errorf("ST_AsGeoJSON: %w", err)
	}
	out.setText(object)
	return nil
}

// predicate makes a function of two geometries; NULL if one of them is.
func predicate(name string, holds func(a, b []byte) (bool, error)) sqlFunc {
	return func(out *result, args []value) error {
		if args[0].isNull() || args[1].isNull() {
			return nil
		}
		a, okA := args[0].blob()
		b, okB := args[1].blob()
		if !okA || !okB {
			return fmt.Errorf("%s: not a geometry", name)
		}
		ok, err := holds(a, b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out.setBool(ok)
		return nil
	}
}
