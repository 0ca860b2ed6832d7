package jsonx_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/jsonx"
)

func ExampleParseObject() {
	body := []byte(`{"title": "caf\u00e9", "year": 1999, "price": 5.0, "tags": ["a", "b"]}`)
	err := jsonx.ParseObject(body, func(name []byte, v jsonx.Value) error {
		switch v.Kind {
		case jsonx.String:
			text, err := v.Text()
			fmt.Printf("%s is the text %s\n", name, text)
			return err
		case jsonx.Int:
			fmt.Printf("%s is the integer %d\n", name, v.Int)
		case jsonx.Float:
			fmt.Printf("%s is the number %g\n", name, v.Float)
		default:
			fmt.Printf("%s is %s\n", name, v.Raw)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// title is the text café
	// year is the integer 1999
	// price is the number 5
	// tags is ["a", "b"]
	// <nil>
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want jsonx.Value
	}{
		{`null`, jsonx.Value{Kind: jsonx.Null}},
		{` true `, jsonx.Value{Kind: jsonx.Bool, Bool: true}},
		{"\r\n\tfalse", jsonx.Value{Kind: jsonx.Bool}},
		{`0`, jsonx.Value{Kind: jsonx.Int}},
		{`-0`, jsonx.Value{Kind: jsonx.Int}},
		{`-7`, jsonx.Value{Kind: jsonx.Int, Int: -7, Float: -7}},
		{`9007199254740993`, jsonx.Value{Kind: jsonx.Int, Int: 9007199254740993, Float: 9007199254740992}},
		{`9223372036854775807`, jsonx.Value{Kind: jsonx.Int, Int: math.MaxInt64, Float: 1 << 63}},
		{`-9223372036854775808`, jsonx.Value{Kind: jsonx.Int, Int: math.MinInt64, Float: -1 << 63}},
		{`9223372036854775808`, jsonx.Value{Kind: jsonx.Int, Int: math.MinInt64, Float: 1 << 63}},
		{`18446744073709551615`, jsonx.Value{Kind: jsonx.Int, Int: -1, Float: 1 << 64}},
		{`18446744073709551616`, jsonx.Value{Kind: jsonx.Float, Float: 1 << 64}},
		{`99999999999999999999`, jsonx.Value{Kind: jsonx.Float, Float: 99999999999999999999}},
		{`100000000000000000000`, jsonx.Value{Kind: jsonx.Float, Float: 1e20}},
		{`-9223372036854775809`, jsonx.Value{Kind: jsonx.Float, Float: -9223372036854775809}},
		{`5.0`, jsonx.Value{Kind: jsonx.Float, Float: 5}},
		{`1e3`, jsonx.Value{Kind: jsonx.Float, Float: 1000}},
		{`-1.5E-3`, jsonx.Value{Kind: jsonx.Float, Float: -0.0015}},
		{`1e-400`, jsonx.Value{Kind: jsonx.Float}},
		{`1.7976931348623157e308`, jsonx.Value{Kind: jsonx.Float, Float: math.MaxFloat64}},
		{`""`, jsonx.Value{Kind: jsonx.String}},
		{`"\u0000"`, jsonx.Value{Kind: jsonx.String, NUL: true}},
		{`[1, {"a": []}]`, jsonx.Value{Kind: jsonx.Array}},
		{`["\u0000"]`, jsonx.Value{Kind: jsonx.Array, NUL: true}},
		{`{"a":{"\u0000":1}}`, jsonx.Value{Kind: jsonx.Object, NUL: true}},
		{`{}`, jsonx.Value{Kind: jsonx.Object}},
	}
	for _, test := range tests {
		v, err := jsonx.Parse([]byte(test.in))
		if err != nil {
			t.Errorf("Parse(%s): %v", test.in, err)
			continue
		}
		if raw := strings.TrimSpace(test.in); string(v.Raw) != raw {
			t.Errorf("Parse(%s).Raw = %s, want %s", test.in, v.Raw, raw)
		}
		w := test.want
		if v.Kind != w.Kind || v.Int != w.Int || v.Float != w.Float || v.Bool != w.Bool || v.NUL != w.NUL {
			t.Errorf("Parse(%s) = %+v, want %+v", test.in, v, w)
		}
		if !jsonx.Valid([]byte(test.in)) {
			t.Errorf("Valid(%s) = false", test.in)
		}
		if kind, err := jsonx.TopLevel([]byte(test.in)); kind != w.Kind || err != nil {
			t.Errorf("TopLevel(%s) = %v, %v", test.in, kind, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in     string
		offset int
		reason string
	}{
		{``, 0, "unexpected end"},
		{`  `, 2, "unexpected end"},
		{"\xEF\xBB\xBF1", 0, "byte order mark"},
		{`nul`, 0, "expected a value"},
		{`NaN`, 0, "expected a value"},
		{`Infinity`, 0, "expected a value"},
		{`True`, 0, "expected a value"},
		{`'a'`, 0, "expected a value"},
		{"\v1", 0, "expected a value"},
		{"\x00", 0, "expected a value"},
		{`nullx`, 4, "text after the end of the value"},
		{`1 2`, 2, "text after the end of the value"},
		{`{}}`, 2, "text after the end of the value"},
		{"{}\x00", 2, "text after the end of the value"},
		{`01`, 1, "text after the end of the value"},
		{`+1`, 0, "expected a value"},
		{`.5`, 0, "expected a value"},
		{`-`, 1, "expected a digit"},
		{`-a`, 1, "expected a digit"},
		{`1.`, 2, "expected a digit"},
		{`1.e3`, 2, "expected a digit"},
		{`1e`, 2, "expected a digit"},
		{`1e+`, 3, "expected a digit"},
		{`0x10`, 1, "text after the end of the value"},
		{`1_000`, 1, "text after the end of the value"},
		{`1e309`, 0, "number too large"},
		{`[1, -1e400]`, 4, "number too large"},
		{strings.Repeat("9", 400), 0, "number too large"},
		{`[` + strings.Repeat("9", 400) + `]`, 1, "number too large"},
		{`"a`, 2, "unexpected end"},
		{`"abcdefghijklmn`, 15, "unexpected end"},
		{"\"a\nb\"", 2, "control character in a string"},
		{"\"abcdefgh\x1f\"", 9, "control character in a string"},
		{"\"a\x00\"", 2, "control character in a string"},
		{"\"\xff\"", 1, "invalid UTF-8"},
		{"\"abcdefghi\xc3\"", 10, "invalid UTF-8"},
		{"\"\xed\xa0\x80\"", 1, "invalid UTF-8"},
		{"\"\xc0\x80\"", 1, "invalid UTF-8"},
		{"\"\xf4\x90\x80\x80\"", 1, "invalid UTF-8"},
		{"[\"\xff\"]", 2, "invalid UTF-8"},
		{"{\"\xff\":1}", 2, "invalid UTF-8"},
		{`"\x41"`, 1, "malformed escape sequence"},
		{`"\`, 1, "malformed escape sequence"},
		{`"\u12"`, 1, "malformed escape sequence"},
		{`"\u12g4"`, 1, "malformed escape sequence"},
		{`"\ud800"`, 1, "lone surrogate"},
		{`"\udc00"`, 1, "lone surrogate"},
		{`"\ud800\ud800"`, 1, "lone surrogate"},
		{`"\ud800\n"`, 1, "lone surrogate"},
		{`"\ud800\u00"`, 1, "lone surrogate"},
		{`"a\udc00\ud800"`, 2, "lone surrogate"},
		{`[`, 1, "unexpected end"},
		{`[1`, 2, "expected a comma or the end of the array"},
		{`[1 2]`, 3, "expected a comma or the end of the array"},
		{`[1,]`, 3, "expected a value"},
		{`[,1]`, 1, "expected a value"},
		{`[1}`, 2, "expected a comma or the end of the array"},
		{`{`, 1, "expected a name"},
		{`{1:2}`, 1, "expected a name"},
		{`{a:2}`, 1, "expected a name"},
		{`{"a"}`, 4, "expected a colon"},
		{`{"a":}`, 5, "expected a value"},
		{`{"a":1,}`, 7, "expected a name"},
		{`{"a":1 "b":2}`, 7, "expected a comma or the end of the object"},
		{`{"a":1]`, 6, "expected a comma or the end of the object"},
		{`{"a":1}//`, 7, "text after the end of the value"},
		{`{"a":1,"b":2,"a":3}`, 13, "name given twice"},
		{`{"a":1,"\u0061":3}`, 7, "name given twice"},
		{`{"\u0061":1,"a":3}`, 12, "name given twice"},
		{`{"\u0061":1,"\u0062":2,"\u0062":3}`, 23, "name given twice"},
		{`{"":1,"":3}`, 6, "name given twice"},
		{`[{"x":[{"a":1,"a":3}]}]`, 14, "name given twice"},
		{strings.Repeat("[", 33) + strings.Repeat("]", 33), 32, "nested too deep"},
		{strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), 160, "nested too deep"},
		{strings.Repeat("[", 1<<20), 32, "nested too deep"},
	}
	for _, test := range tests {
		_, err := jsonx.Parse([]byte(test.in))
		var e *jsonx.Error
		if !errors.As(err, &e) || e.Offset != test.offset || e.Reason != test.reason {
			t.Errorf("Parse(%.60q): %v, want %q at %d", test.in, err, test.reason, test.offset)
		}
		if jsonx.Valid([]byte(test.in)) {
			t.Errorf("Valid(%.60q) = true", test.in)
		}
		// The same inside of an object and an array.
		err = jsonx.ParseObject([]byte(`{"k":`+test.in+`}`), func([]byte, jsonx.Value) error { return nil })
		if !errors.As(err, &e) {
			t.Errorf("ParseObject of a member %.60q: %v", test.in, err)
		}
		err = jsonx.ParseArray([]byte(`[`+test.in+`]`), func(jsonx.Value) error { return nil })
		if test.in != "" && strings.TrimSpace(test.in) != "" && !errors.As(err, &e) {
			t.Errorf("ParseArray of an element %.60q: %v", test.in, err)
		}
	}
}

func TestErrorMessage(t *testing.T) {
	t.Parallel()
	_, err := jsonx.Parse([]byte(`{"<secret>": x}`))
	if got, want := err.Error(), "invalid JSON at byte 13: expected a value"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDepthLimit(t *testing.T) {
	t.Parallel()
	deepest := strings.Repeat("[", jsonx.MaxDepth) + strings.Repeat("]", jsonx.MaxDepth)
	if _, err := jsonx.Parse([]byte(deepest)); err != nil {
		t.Error(err)
	}
	// Depth is that of the whole text, the outermost object included.
	none := func([]byte, jsonx.Value) error { return nil }
	if err := jsonx.ParseObject([]byte(`{"a":`+deepest+`}`), none); err == nil {
		t.Error("one level too many was accepted")
	}
	if err := jsonx.ParseObject([]byte(`{"a":`+deepest[1:len(deepest)-1]+`}`), none); err != nil {
		t.Error(err)
	}
}

// object returns an object with n members named by name.
func object(n int, name func(i int) string) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%s":%d`, name(i), i)
	}
	return []byte("{" + b.String()[1:] + "}")
}

func TestManyMembers(t *testing.T) {
	t.Parallel()
	plain := func(i int) string { return fmt.Sprintf("key%d", i) }
	for _, n := range []int{1, 15, 16, 17, 18, 100, jsonx.MaxMembers} {
		seen := 0
		err := jsonx.ParseObject(object(n, plain), func(name []byte, v jsonx.Value) error {
			if string(name) != plain(seen) || v.Int != int64(seen) {
				t.Errorf("member %d is %s: %d", seen, name, v.Int)
			}
			seen++
			return nil
		})
		if err != nil || seen != n {
			t.Errorf("%d members: %v after %d", n, err, seen)
		}
		if n == 1 {
			continue
		}
		// The last one again, once as it is and once escaped; the text of the
		// error must point at it.
		for _, again := range []string{plain(n / 2), strings.Replace(plain(n/2), "k", `\u006b`, 1)} {
			text := object(n, func(i int) string {
				if i == n-1 {
					return again
				}
				return plain(i)
			})
			for _, text := range []string{string(text), "[1," + string(text) + "]"} {
				_, err := jsonx.Parse([]byte(text))
				want := strings.LastIndex(text, `"`+again+`"`)
				var e *jsonx.Error
				if n/2 == n-1 {
					continue
				}
				if !errors.As(err, &e) || e.Offset != want || e.Reason != "name given twice" {
					t.Errorf("%d members with a repeated one at %d: %v", n, want, err)
				}
			}
		}
	}

	_, err := jsonx.Parse(object(jsonx.MaxMembers+1, plain))
	var e *jsonx.Error
	if !errors.As(err, &e) || e.Reason != "too many members" {
		t.Errorf("%d members: %v", jsonx.MaxMembers+1, err)
	}
	// Objects inside one another keep their names apart.
	nested := object(40, plain)
	nested = []byte(strings.Replace(string(nested), ":7,", `:`+string(nested)+`,`, 1))
	if _, err := jsonx.Parse(nested); err != nil {
		t.Error(err)
	}
	for _, same := range []string{`{"a":{"a":{"a":1}},"b":{"a":1}}`, `{"\u0061":{"\u0061":1,"\u0062":{"b":2}},"\u0062":{"a":1}}`} {
		if _, err := jsonx.Parse([]byte(same)); err != nil {
			t.Errorf("%s: %v", same, err)
		}
	}
}

func TestParseObjectNames(t *testing.T) {
	t.Parallel()
	var got []string
	text := `{"":0, "a\"\\\/\b\f\n\r\t":1, "\u00e9\ud83d\ude00é😀":2, "x" : [ 1 , 2 ] }`
	err := jsonx.ParseObject([]byte(text), func(name []byte, v jsonx.Value) error {
		if name == nil {
			t.Error("a name is nil")
		}
		got = append(got, fmt.Sprintf("%s=%s", name, v.Raw))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"=0", "a\"\\/\b\f\n\r\t=1", "é😀é😀=2", "x=[ 1 , 2 ]"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCallbackError(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	calls := 0
	err := jsonx.ParseObject([]byte(`{"a":1,"b":2,`), func([]byte, jsonx.Value) error {
		calls++
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("ParseObject: %v after %d calls", err, calls)
	}
	calls = 0
	err = jsonx.ParseArray([]byte(`[1,2,`), func(jsonx.Value) error {
		calls++
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("ParseArray: %v after %d calls", err, calls)
	}
}

func TestWrongTopLevel(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`[]`, `1`, ``, `"a"`, ` null`} {
		if err := jsonx.ParseObject([]byte(text), nil); err == nil {
			t.Errorf("ParseObject(%s) succeeded", text)
		}
	}
	for _, text := range []string{`{}`, `1`, ``, `"a"`, ` null`} {
		if err := jsonx.ParseArray([]byte(text), nil); err == nil {
			t.Errorf("ParseArray(%s) succeeded", text)
		}
	}
	for _, text := range []string{``, `x`, `nulll`, `1,`, `"`, "\xEF\xBB\xBF{}"} {
		if _, err := jsonx.TopLevel([]byte(text)); err == nil {
			t.Errorf("TopLevel(%s) succeeded", text)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`""`:                       "",
		`"plain"`:                  "plain",
		`"a\u0000b"`:               "a\x00b",
		`"\ud83d\ude00"`:           "😀",
		`"\uD83D\uDE00\uFFFD"`:     "😀\uFFFD",
		`"\"\\\/\b\f\n\r\t\u001f"`: "\"\\/\b\f\n\r\t\x1f",
		`"end\\"`:                  `end\`,
	} {
		v, err := jsonx.Parse([]byte(in))
		if err != nil {
			t.Errorf("Parse(%s): %v", in, err)
			continue
		}
		if got, err := v.Text(); got != want || err != nil {
			t.Errorf("Text of %s = %q, %v, want %q", in, got, err, want)
		}
		if got, err := v.AppendText([]byte("x")); string(got) != "x"+want || err != nil {
			t.Errorf("AppendText of %s = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{`null`, `1`, `[]`} {
		v, err := jsonx.Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Text(); err == nil {
			t.Errorf("Text of %s succeeded", in)
		}
		if got, err := v.AppendText([]byte("x")); string(got) != "x" || err == nil {
			t.Errorf("AppendText of %s = %s, %v", in, got, err)
		}
	}
}

// The scanner must not allocate for an ordinary body, escapes in names aside.
func TestParseObjectAllocations(t *testing.T) {
	body := []byte(body170)
	sum := 0
	allocs := testing.AllocsPerRun(100, func() {
		err := jsonx.ParseObject(body, func(name []byte, v jsonx.Value) error {
			sum += len(name) + len(v.Raw)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
