package geo_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/geo"
)

func TestWKTToGeoJSON(t *testing.T) {
	t.Parallel()
	tests := []struct{ wkt, want string }{
		{"POINT(12.4924 41.8902)", `{"type":"Point","coordinates":[12.4924,41.8902]}`},
		{"point (1 2)", `{"type":"Point","coordinates":[1,2]}`},
		{"POINT Z (1 2 3)", `{"type":"Point","coordinates":[1,2,3]}`},
		{"POINT M (1 2 3)", `{"type":"Point","coordinates":[1,2]}`},
		{"POINT EMPTY", `{"type":"Point","coordinates":[]}`},
		{"LINESTRING(10 20, 20 30)", `{"type":"LineString","coordinates":[[10,20],[20,30]]}`},
		{
			"POLYGON ((0 -90, 180 -90, 180 0, 0 0, 0 -90))",
			`{"type":"Polygon","coordinates":[[[0,-90],[180,-90],[180,0],[0,0],[0,-90]]]}`,
		},
		{"MULTIPOINT ((1 2), (3 4))", `{"type":"MultiPoint","coordinates":[[1,2],[3,4]]}`},
		{
			"GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))",
			`{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1,2]},{"type":"LineString","coordinates":[[0,0],[1,1]]}]}`,
		},

		{"", ""},
		{"POINT", ""},
		{"POINT(1)", ""},
		{"POINT(1 2", ""},
		{"POINT(1 2) POINT(1 2)", ""},
		{"POINT(1 2); DROP TABLE t", ""},
		{"POINT(nan 2)", ""},
		{"POINT(1e999 2)", ""},
		{"CIRCLE(1 2, 3)", ""},
		{"LINESTRING(1 2)", ""},
		{"POLYGON((0 0, 1 1))", ""},
		{"POLYGON((0 0, 1 1, 1 0, 0 1, 0 0))", ""}, // a bow tie
		{"\x00", ""},
		{"\xff\xfe", ""},
	}
	for _, tt := range tests {
		wkb, err := geo.FromWKT(tt.wkt)
		if tt.want == "" {
			if err == nil {
				t.Errorf("FromWKT(%q) = %x, want an error", tt.wkt, wkb)
			}
			continue
		}
		if err != nil {
			t.Errorf("FromWKT(%q): %v", tt.wkt, err)
			continue
		}
		if !geo.Valid(wkb) {
			t.Errorf("%s: stored form is not valid", tt.wkt)
		}
		got, err := geo.AppendGeoJSON([]byte("x"), wkb)
		if err != nil || string(got) != "x"+tt.want {
			t.Errorf("%s: AppendGeoJSON = %s, %v, want x%s", tt.wkt, got, err, tt.want)
		}
		again, err := geo.FromGeoJSON(got[1:])
		if err != nil {
			t.Errorf("%s: FromGeoJSON of the output: %v", tt.wkt, err)
		} else if !strings.Contains(tt.wkt, "M") && string(again) != string(wkb) {
			t.Errorf("%s: %x came back as %x", tt.wkt, wkb, again)
		}
		text, err := geo.AppendWKT(nil, wkb)
		if err != nil {
			t.Errorf("%s: AppendWKT: %v", tt.wkt, err)
		}
		if again, err := geo.FromWKT(string(text)); err != nil || string(again) != string(wkb) {
			t.Errorf("%s came back from text as %s (%v)", tt.wkt, text, err)
		}
	}
}

func TestFromGeoJSONRefuses(t *testing.T) {
	t.Parallel()
	for _, object := range []string{
		``, `null`, `1`, `"POINT(1 2)"`, `[]`, `{}`, `{"type":"Point"}`,
		`{"type":"Point","coordinates":null}`,
		`{"type":"Point","coordinates":[null,1]}`,
		`{"type":"Point","coordinates":[1]}`,
		`{"type":"Point","coordinates":["1",2]}`,
		`{"type":"Point","coordinates":[1e999,2]}`,
		`{"type":"Point","coordinates":[[1,2]]}`,
		`{"type":"Point","coordinates":[1,2]} {}`,
		`{"type":"point","coordinates":[1,2]}`,
		`{"type":"Polygon","coordinates":[[[0,0],[1,1],[1,0],[0,1],[0,0]]]}`,
		`{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]},"properties":{}}`,
		`{"type":"FeatureCollection","features":[]}`,
	} {
		if wkb, err := geo.FromGeoJSON([]byte(object)); err == nil {
			t.Errorf("FromGeoJSON(%s) = %x, want an error", object, wkb)
		}
	}
}

func TestWKBVariants(t *testing.T) {
	t.Parallel()
	const (
		xy   = "000000000000f03f0000000000000040"
		xyBE = "3ff00000000000004000000000000000"
		z    = "0000000000000840"
		nan  = "010000000000f87f"
	)
	tests := []struct{ name, wkb, want string }{
		{"little endian", "0101000000" + xy, "POINT(1 2)"},
		{"big endian", "0000000001" + xyBE, "POINT(1 2)"},
		{"spatial reference", "0101000020e6100000" + xy, "POINT(1 2)"},
		{"big endian, spatial reference", "0020000001000010e6" + xyBE, "POINT(1 2)"},
		{"ISO Z", "01e9030000" + xy + z, "POINT Z (1 2 3)"},
		{"extended Z", "0101000080" + xy + z, "POINT Z (1 2 3)"},
		{"extended M", "0101000040" + xy + z, "POINT M (1 2 3)"},
		{"extended Z, spatial reference", "01010000a0e6100000" + xy + z, "POINT Z (1 2 3)"},
		{"empty", "0101000000" + nan + nan, "POINT EMPTY"},
		{"mixed byte order", "0104000000020000000101000000" + xy + "0000000001" + xyBE, "MULTIPOINT((1 2),(1 2))"},
		{"spatial reference in a part", "0104000000010000000101000020e6100000" + xy, "MULTIPOINT((1 2))"},

		{"nothing", "", ""},
		{"cut short", "0101000000" + xy[2:], ""},
		{"trailing byte", "0101000000" + xy + "00", ""},
		{"byte order", "0201000000" + xy, ""},
		{"type 0", "0100000000", ""},
		{"type 8", "0108000000", ""},
		{"type 4001", "01a10f0000" + xy, ""},
		{"ISO and extended Z", "01e9030080" + xy + z, ""},
		{"not a number", "0101000000" + nan + xy[16:], ""},
		{"measure not a number", "01d1070000" + xy + nan, ""},
		{"infinite", "0101000000000000000000f07f" + xy[16:], ""},
		{"4294967295 points", "0102000000ffffffff" + xy, ""},
		{"4294967295 rings", "0103000000ffffffff" + xy, ""},
		{"4294967295 parts", "0107000000ffffffff" + xy, ""},
		{"line in a multipoint", "01040000000100000001020000000000000000", ""},
		{"Z in XY", "0104000000010000000101000080" + xy + z, ""},
	}
	for _, tt := range tests {
		wkb, err := hex.DecodeString(tt.wkb)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		text, err := geo.AppendWKT(nil, wkb)
		if string(text) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: AppendWKT = %q, %v, want %q", tt.name, text, err, tt.want)
		}
		if ok := geo.Valid(wkb); ok != (tt.want != "") {
			t.Errorf("%s: Valid = %t", tt.name, ok)
		}
	}
}

func TestPredicates(t *testing.T) {
	t.Parallel()
	const (
		square = "POLYGON ((12 40, 12 42, 13 42, 13 40, 12 40))"
		empty  = "POINT EMPTY"
	)
	tests := []struct {
		a, b                         string
		within, intersects, contains bool
	}{
		{"POINT(12.4924 41.8902)", square, true, true, false},
		{square, "POINT(12.4924 41.8902)", false, true, true},
		{"POINT(12 41)", square, false, true, false}, // on the boundary
		{"POINT(11 41)", square, false, false, false},
		{"LINESTRING(10 20, 20 30)", square, false, false, false},
		{"LINESTRING(12.1 41, 12.9 41)", square, true, true, false},
		{"LINESTRING(11 41, 14 41)", square, false, true, false},
		{square, square, true, true, true},
		{square, "POLYGON ((0 0, 50 0, 50 50, 0 50, 0 0))", true, true, false},
		{square, "POLYGON ((12.5 40, 12.5 43, 14 43, 14 40, 12.5 40))", false, true, false},
		{"POINT(1 1)", "POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (0.5 0.5, 0.5 2, 2 2, 2 0.5, 0.5 0.5))", false, false, false},
		{"POINT(1 1)", "MULTIPOLYGON (((0 0, 2 0, 2 2, 0 2, 0 0)), ((5 5, 6 5, 6 6, 5 5)))", true, true, false},
		{"POINT(0 1)", "MULTIPOLYGON (((0 0, 2 0, 2 2, 0 2, 0 0)), ((5 5, 6 5, 6 6, 5 5)))", false, true, false},
		{"POINT(1 1)", "LINESTRING(0 0, 2 2)", true, true, false},
		{"POINT(0 0)", "LINESTRING(0 0, 2 2)", false, true, false},
		{"MULTIPOINT((12.5 41), (12.6 41))", square, true, true, false},
		{"GEOMETRYCOLLECTION(POINT(12.5 41), LINESTRING(12.1 41, 12.9 41))", square, true, true, false},
		{empty, square, false, false, false},
		{square, empty, false, false, false},
		{empty, empty, false, false, false},
	}
	for _, tt := range tests {
		a, b := wkt(t, tt.a), wkt(t, tt.b)
		for _, p := range []struct {
			name  string
			holds func(a, b []byte) (bool, error)
			want  bool
		}{{"within", geo.Within, tt.within}, {"intersects", geo.Intersects, tt.intersects}, {"contains", geo.Contains, tt.contains}} {
			if got, err := p.holds(a, b); err != nil || got != p.want {
				t.Errorf("%s %s %s = %t, %v, want %t", tt.a, p.name, tt.b, got, err, p.want)
			}
		}
	}
	if _, err := geo.Within([]byte("x"), wkt(t, square)); err == nil {
		t.Error("Within of garbage: no error")
	}
	if _, err := geo.Within(wkt(t, square), nil); err == nil {
		t.Error("Within of nothing: no error")
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	deep := func(n int, open, inner, shut string) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	const (
		wktOpen  = "GEOMETRYCOLLECTION("
		jsonOpen = `{"type":"GeometryCollection","geometries":[`
		inner    = `{"type":"Point","coordinates":[1,2]}`
	)
	if _, err := geo.FromWKT(deep(geo.MaxDepth, wktOpen, "POINT(1 2)", ")")); err != nil {
		t.Errorf("WKT, deepest: %v", err)
	}
	if _, err := geo.FromGeoJSON([]byte(deep(geo.MaxDepth, jsonOpen, inner, "]}"))); err != nil {
		t.Errorf("GeoJSON, deepest: %v", err)
	}
	nested := make([]byte, 0, geo.MaxSize)
	for len(nested)+9 <= geo.MaxSize {
		nested = append(nested, 1, 7, 0, 0, 0, 1, 0, 0, 0)
	}
	many := "MULTIPOINT(" + strings.Repeat("0 0,", geo.MaxPoints) + "0 0)"
	for name, err := range map[string]error{
		"WKT, one too deep":       second(geo.FromWKT(deep(geo.MaxDepth+1, wktOpen, "POINT(1 2)", ")"))),
		"WKT, abyss":              second(geo.FromWKT(strings.Repeat(wktOpen, 50_000))),
		"WKT, parentheses":        second(geo.FromWKT("POINT" + strings.Repeat("(", 1_000_000))),
		"WKT, long":               second(geo.FromWKT("POINT(" + strings.Repeat(" ", geo.MaxSize) + "1 2)")),
		"WKT, points":             second(geo.FromWKT(many)),
		"GeoJSON, one too deep":   second(geo.FromGeoJSON([]byte(deep(geo.MaxDepth+1, jsonOpen, inner, "]}")))),
		"GeoJSON, long":           second(geo.FromGeoJSON(make([]byte, geo.MaxSize+1))),
		"WKB, abyss":              second(geo.AppendWKT(nil, nested)),
		"WKB, long":               second(geo.AppendWKT(nil, make([]byte, geo.MaxSize+1))),
		"slanted teeth":           second(geo.FromWKT(comb(20_000))),
		"slanted teeth, compared": second(geo.Within(wkt(t, "POINT(500 499)"), wkt(t, comb(2000)))),
	} {
		if !errors.Is(err, geo.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
}

func TestLargeButPlain(t *testing.T) {
	t.Parallel()
	const n = 20_000
	wkb := []byte{1, 3, 0, 0, 0, 1, 0, 0, 0}
	wkb = binary.LittleEndian.AppendUint32(wkb, n+1)
	for i := range n + 1 {
		angle := 2 * math.Pi * float64(i%n) / n
		for _, v := range []float64{math.Cos(angle), math.Sin(angle)} {
			wkb = binary.LittleEndian.AppendUint64(wkb, math.Float64bits(v))
		}
	}
	if !geo.Valid(wkb) {
		t.Fatal("a circle of many points is not valid")
	}
	for point, want := range map[string]bool{"POINT(0.5 0.5)": true, "POINT(0.9 0.9)": false} {
		if got, err := geo.Within(wkt(t, point), wkb); err != nil || got != want {
			t.Errorf("%s within the circle = %t, %v", point, got, err)
		}
	}
}

func FuzzFromWKT(f *testing.F) {
	for _, s := range []string{"POINT(1 2)", "POLYGON((0 0,1 0,1 1,0 0))", "GEOMETRYCOLLECTION(POINT Z (1 2 3))", "MULTIPOINT(1 2,EMPTY)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if wkb, err := geo.FromWKT(s); err == nil {
			roundTrip(t, wkb)
		}
	})
}

func FuzzFromGeoJSON(f *testing.F) {
	f.Add([]byte(`{"type":"Point","coordinates":[1,2]}`))
	f.Add([]byte(`{"type":"GeometryCollection","geometries":[{"type":"LineString","coordinates":[[1,2,3],[3,4,5]]}]}`))
	f.Fuzz(func(t *testing.T, object []byte) {
		if wkb, err := geo.FromGeoJSON(object); err == nil {
			roundTrip(t, wkb)
		}
	})
}

func FuzzWKB(f *testing.F) {
	for _, s := range []string{"POINT(1 2)", "POLYGON((0 0,1 0,1 1,0 0))", "GEOMETRYCOLLECTION(POINT Z (1 2 3))"} {
		wkb, err := geo.FromWKT(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wkb, wkb)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if geo.Valid(a) {
			roundTrip(t, a)
		}
		within, errWithin := geo.Within(a, b)
		contains, errContains := geo.Contains(b, a)
		if within != contains || (errWithin == nil) != (errContains == nil) {
			t.Errorf("within: %t, %v; contains: %t, %v", within, errWithin, contains, errContains)
		}
		_, _ = geo.Intersects(a, b)
	})
}

// roundTrip checks that a valid geometry has a text and an object, that the
// text gives the same geometry and that the object is JSON.
func roundTrip(t *testing.T, wkb []byte) {
	t.Helper()
	text, err := geo.AppendWKT(nil, wkb)
	if err != nil {
		t.Fatalf("AppendWKT(%x): %v", wkb, err)
	}
	if again, err := geo.FromWKT(string(text)); err == nil {
		if s, err := geo.AppendWKT(nil, again); err != nil || string(s) != string(text) {
			t.Errorf("%s came back as %s (%v)", text, s, err)
		}
	} else if !errors.Is(err, geo.ErrTooLarge) {
		t.Errorf("FromWKT(%s): %v", text, err)
	}
	object, err := geo.AppendGeoJSON(nil, wkb)
	if err != nil || !json.Valid(object) {
		t.Errorf("AppendGeoJSON(%x) = %s, %v", wkb, object, err)
	}
}

func BenchmarkWithin(b *testing.B) {
	square, err := geo.FromWKT("POLYGON ((12 40, 12 42, 13 42, 13 40, 12 40))")
	if err != nil {
		b.Fatal(err)
	}
	for _, text := range []string{"POINT(12.4924 41.8902)", "POINT(1 2)"} {
		point, err := geo.FromWKT(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := geo.Within(point, square); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValid(b *testing.B) {
	point, err := geo.FromWKT("POINT(1 2)")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !geo.Valid(point) {
			b.Fatal("not valid")
		}
	}
}

// comb returns a polygon of long slanted teeth, in which every edge is near
// all others.
func comb(teeth int) string {
	var b strings.Builder
	b.WriteString("POLYGON((0 0")
	for i := 1; i < teeth; i++ {
		x := float64(i) * 1e-4
		if i%2 == 1 {
			fmt.Fprintf(&b, ",%g 1000", x+1000)
		} else {
			fmt.Fprintf(&b, ",%g 0", x)
		}
	}
	b.WriteString(",2000 -1,0 0))")
	return b.String()
}

func wkt(t *testing.T, text string) []byte {
	t.Helper()
	wkb, err := geo.FromWKT(text)
	if err != nil {
		t.Fatalf("%.100s: %v", text, err)
	}
	return wkb
}

func second[T any](_ T, err error) error { return err }
