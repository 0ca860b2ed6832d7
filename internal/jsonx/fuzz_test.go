package jsonx_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// FuzzParseObject compares the scanner with encoding/json: the same texts are
// accepted, apart from those that only encoding/json puts up with, and the
// same values come out.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{
		body170,
		`{}`, `[]`, `null`, `{"a":1,"a":2}`, `{"a":{"b":[1,2,{"c":"\ud83d\ude00"}]}}`,
		`[1.5e3,-0,18446744073709551615,1e999]`, `{"\u0061":"\ud800"}`, "{\"a\":\"\xff\"}",
		strings.Repeat("[", 33) + strings.Repeat("]", 33), `"\u0000"`, "\xEF\xBB\xBF{}",
		`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":0,"k":1,"l":2,"m":3,"n":4,"o":5,"p":6,"q":7,"q":8}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := jsonx.Parse(data)
		want := strictlyValid(data)
		if (err == nil) != want {
			t.Fatalf("Parse(%q): %v, want success %v", data, err, want)
		}

		compact, compactErr := jsonx.AppendCompact(nil, data)
		if want && compactErr != nil {
			t.Fatalf("AppendCompact(%q): %v", data, compactErr)
		}
		if compactErr == nil {
			var b bytes.Buffer
			if err := json.Compact(&b, data); err != nil || !bytes.Equal(b.Bytes(), compact) {
				t.Fatalf("AppendCompact(%q) = %q, want %q, %v", data, compact, b.Bytes(), err)
			}
		}

		kind, topErr := jsonx.TopLevel(data)
		if want && topErr != nil {
			t.Fatalf("TopLevel(%q): %v", data, topErr)
		}

		members := map[string]jsonx.Value{}
		err = jsonx.ParseObject(data, func(name []byte, v jsonx.Value) error {
			members[string(name)] = v
			return nil
		})
		if (err == nil) != (want && kind == jsonx.Object) {
			t.Fatalf("ParseObject(%q): %v", data, err)
		}
		if err == nil {
			var oracle map[string]json.RawMessage
			if err := json.Unmarshal(data, &oracle); err != nil {
				t.Fatal(err)
			}
			if len(oracle) != len(members) {
				t.Fatalf("ParseObject(%q) gave %d members, want %d", data, len(members), len(oracle))
			}
			for name, raw := range oracle {
				checkValue(t, members[name], raw)
			}
		}

		var elements []jsonx.Value
		err = jsonx.ParseArray(data, func(v jsonx.Value) error {
			elements = append(elements, v)
			return nil
		})
		if (err == nil) != (want && kind == jsonx.Array) {
			t.Fatalf("ParseArray(%q): %v", data, err)
		}
		if err == nil {
			var oracle []json.RawMessage
			if err := json.Unmarshal(data, &oracle); err != nil {
				t.Fatal(err)
			}
			if len(oracle) != len(elements) {
				t.Fatalf("ParseArray(%q) gave %d elements, want %d", data, len(elements), len(oracle))
			}
			for i, raw := range oracle {
				checkValue(t, elements[i], raw)
			}
		}
	})
}

// strictlyValid tells whether a text keeps all rules of the package.
func strictlyValid(data []byte) bool {
	if !json.Valid(data) || !utf8.Valid(data) || hasLoneSurrogate(data) {
		return false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return strictTokens(dec, 0)
}

// strictTokens reads one value inside depth arrays and objects.
func strictTokens(dec *json.Decoder, depth int) bool {
	token, err := dec.Token()
	if err != nil {
		return err == io.EOF
	}
	switch token := token.(type) {
	case json.Number:
		_, err := strconv.ParseFloat(token.String(), 64)
		return err == nil
	case json.Delim:
		if depth == jsonx.MaxDepth {
			return false
		}
		names := map[string]bool{}
		for dec.More() {
			if token == '{' {
				name, err := dec.Token()
				if err != nil || names[name.(string)] {
					return false
				}
				names[name.(string)] = true
			}
			if !strictTokens(dec, depth+1) {
				return false
			}
		}
		if _, err := dec.Token(); err != nil {
			return false
		}
		return len(names) <= jsonx.MaxMembers
	}
	return true
}

// hasLoneSurrogate looks at a text that is valid otherwise.
func hasLoneSurrogate(data []byte) bool {
	text := strings.ReplaceAll(string(data), `\\`, "  ")
	for {
		i := strings.Index(text, `\u`)
		if i < 0 {
			return false
		}
		n, _ := strconv.ParseUint(text[i+2:i+6], 16, 16)
		text = text[i+6:]
		if n >= 0xD800 && n < 0xE000 {
			if n >= 0xDC00 || !strings.HasPrefix(text, `\u`) {
				return true
			}
			if low, _ := strconv.ParseUint(text[2:6], 16, 16); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			text = text[6:]
		}
	}
}

// checkValue compares v with a value that encoding/json found.
func checkValue(t *testing.T, v jsonx.Value, raw json.RawMessage) {
	t.Helper()
	if !bytes.Equal(v.Raw, raw) {
		t.Fatalf("Raw = %q, want %q", v.Raw, raw)
	}
	ok := false
	switch raw[0] {
	case '{':
		ok = v.Kind == jsonx.Object
	case '[':
		ok = v.Kind == jsonx.Array
	case 'n':
		ok = v.Kind == jsonx.Null
	case 't', 'f':
		ok = v.Kind == jsonx.Bool && v.Bool == (raw[0] == 't')
	case '"':
		var want string
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		text, err := v.Text()
		ok = err == nil && text == want && v.NUL == strings.Contains(want, "\x00")
	default:
		float, err := strconv.ParseFloat(string(raw), 64)
		if err != nil {
			t.Fatal(err)
		}
		ok = v.Kind == jsonx.Float && v.Float == float
		if !bytes.ContainsAny(raw, ".eE") {
			if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
				ok = v.Kind == jsonx.Int && v.Int == n && v.Float == float
			} else if u, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
				ok = v.Kind == jsonx.Int && v.Int == int64(u) && v.Float == float
			}
		}
	}
	if !ok {
		t.Fatalf("%s was read as %+v", raw, v)
	}
}

// FuzzAppendString compares the appenders with encoding/json and strconv.
func FuzzAppendString(f *testing.F) {
	f.Add("", uint64(0))
	f.Add("caf\xc3\xa9 \"<&>\" \\ \x00 \xff \u2028", math.Float64bits(1e16))
	f.Add("a text that is longer than one word", math.Float64bits(-2.5e-7))
	f.Fuzz(func(t *testing.T, s string, floatBits uint64) {
		checkString(t, s)

		float := math.Float64frombits(floatBits)
		text := jsonx.AppendFloat(nil, float)
		if math.IsNaN(float) || math.IsInf(float, 0) {
			if string(text) != "null" {
				t.Fatalf("AppendFloat(%g) = %s", float, text)
			}
			return
		}
		v, err := jsonx.Parse(text)
		if err != nil || v.Kind != jsonx.Float || math.Float64bits(v.Float) != floatBits {
			t.Fatalf("AppendFloat(%g) = %s: %v", float, text, err)
		}
		// No shorter digits exist: the same as those of strconv.
		digits := func(s string) string {
			s, _, _ = strings.Cut(strings.TrimPrefix(s, "-"), "e")
			return strings.Trim(strings.ReplaceAll(s, ".", ""), "0")
		}
		if want := strconv.FormatFloat(float, 'e', -1, 64); digits(string(text)) != digits(want) {
			t.Fatalf("AppendFloat(%g) = %s, digits of %s", float, text, want)
		}
	})
}
