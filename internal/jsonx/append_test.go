package jsonx_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/jsonx"
)

func TestAppendString(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                              `""`,
		"plain":                         `"plain"`,
		"exactly8":                      `"exactly8"`,
		"a<b>&'c'":                      `"a<b>&'c'"`,
		`say "hi" \o/`:                  `"say \"hi\" \\o/"`,
		"\b\f\n\r\t":                    `"\b\f\n\r\t"`,
		"\x00\x01\x1f\x7f":              `"\u0000\u0001\u001f` + "\x7f\"",
		"é😀\u2028\u2029":                "\"é😀\u2028\u2029\"",
		"a\xffb":                        "\"a\uFFFDb\"",
		"\xed\xa0\x80":                  "\"\uFFFD\uFFFD\uFFFD\"",
		"\xff\"\xfe":                    "\"\uFFFD\\\"\uFFFD\"",
		"a long text, then a quote\" x": `"a long text, then a quote\" x"`,
	} {
		if got := string(jsonx.AppendString([]byte("x"), in)); got != "x"+want {
			t.Errorf("AppendString(%q) = %s, want x%s", in, got, want)
		}
	}
	// Every byte at every place of a word.
	for c := range 256 {
		for place := range 17 {
			in := strings.Repeat("a", place) + string([]byte{byte(c)}) + strings.Repeat("b", 16-place)
			checkString(t, in)
		}
	}
}

// checkString compares AppendString with encoding/json.
func checkString(t *testing.T, in string) {
	t.Helper()
	got := jsonx.AppendString(nil, in)
	var back string
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatalf("AppendString(%q) = %s: %v", in, got, err)
	}
	marshalled, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var want string
	if err := json.Unmarshal(marshalled, &want); err != nil {
		t.Fatal(err)
	}
	if back != want {
		t.Fatalf("AppendString(%q) reads back as %q, want %q", in, back, want)
	}
	v, err := jsonx.Parse(got)
	if err != nil {
		t.Fatalf("Parse(%s): %v", got, err)
	}
	if text, err := v.Text(); text != want || err != nil {
		t.Fatalf("Text of %s = %q, %v", got, text, err)
	}
	if v.NUL != strings.Contains(want, "\x00") {
		t.Fatalf("NUL of %s = %v", got, v.NUL)
	}
}

func TestAppendFloat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in   float64
		want string
	}{
		{0, "0.0"},
		{math.Copysign(0, -1), "-0.0"},
		{5, "5.0"},
		{-5, "-5.0"},
		{0.1, "0.1"},
		{1.0 / 3, "0.3333333333333333"},
		{123456.75, "123456.75"},
		{1 << 53, "9007199254740992.0"},
		{1e15, "1000000000000000.0"},
		{9999999999999998, "9999999999999998.0"},
		{-9999999999999998, "-9999999999999998.0"},
		{1e16, "1e16"},
		{-1e16, "-1e16"},
		{12345678901234567890, "1.2345678901234567e19"},
		{1e100, "1e100"},
		{1.5e300, "1.5e300"},
		{math.MaxFloat64, "1.7976931348623157e308"},
		{1e-5, "0.00001"},
		{1.25e-5, "0.0000125"},
		{9.999999999999999e-6, "9.999999999999999e-6"},
		{1e-6, "1e-6"},
		{-2.5e-7, "-2.5e-7"},
		{1e-10, "1e-10"},
		{math.SmallestNonzeroFloat64, "5e-324"},
		{math.NaN(), "null"},
		{math.Inf(1), "null"},
		{math.Inf(-1), "null"},
	} {
		if got := string(jsonx.AppendFloat([]byte("x"), test.in)); got != "x"+test.want {
			t.Errorf("AppendFloat(%g) = %s, want x%s", test.in, got, test.want)
		}
	}
}

func TestAppendInt(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		if got, want := string(jsonx.AppendInt([]byte("x"), n)), "x"+strconv.FormatInt(n, 10); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAppendBytesBase64URL(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "a", "ab", "abc", "\xfb\xff\xfe", strings.Repeat("\xff", 16)} {
		got := string(jsonx.AppendBytesBase64URL([]byte("x"), []byte(in)))
		if want := `x"` + base64.URLEncoding.EncodeToString([]byte(in)) + `"`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAppendCompact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`1`:                                    `1`,
		" \t\r\n{ } ":                          `{}`,
		`{"a b" : [ 1 , "c  d\" e" , null ] }`: `{"a b":[1,"c  d\" e",null]}`,
		`{"a":1,"a":2}`:                        `{"a":1,"a":2}`,
		`[ "\ud800" , 1e999 ]`:                 `["\ud800",1e999]`,
		strings.Repeat("[ ", 512) + strings.Repeat("]", 512): strings.Repeat("[", 512) + strings.Repeat("]", 512),
	} {
		got, err := jsonx.AppendCompact([]byte("x"), []byte(in))
		if string(got) != "x"+want || err != nil {
			t.Errorf("AppendCompact(%.40s) = %.40s, %v", in, got, err)
		}
	}
	for _, in := range []string{``, `{`, `[1,]`, `1 2`, "\"\xff\"", "\xEF\xBB\xBF1", strings.Repeat("[", 513) + strings.Repeat("]", 513)} {
		got, err := jsonx.AppendCompact([]byte("x"), []byte(in))
		var e *jsonx.Error
		if string(got) != "x" || !errors.As(err, &e) {
			t.Errorf("AppendCompact(%.40q) = %.40s, %v", in, got, err)
		}
	}
}
