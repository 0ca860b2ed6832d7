package sqltoken_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqltoken"
)

func describe(tokens []sqltoken.Token) string {
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s<%s>", [...]string{"word", "quoted", "string", "blob", "number", "param", "punct"}[t.Kind], t.Text)
	}
	return b.String()
}

func TestScan(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		"":                                     "",
		" \t\r\n\f":                            "",
		"a b1 _c d$e é":                        "word<a> word<b1> word<_c> word<d$e> word<é>",
		`"a""b" [c d] ` + "`e``f`":             `quoted<"a""b"> quoted<[c d]> quoted<` + "`e``f`>",
		`'it''s' ''`:                           `string<'it''s'> string<''>`,
		`x'0f' X'' x 'a'`:                      `blob<x'0f'> blob<X''> word<x> string<'a'>`,
		`1 1.5 .5 5. 1e5 1E+5 1e-5 0x1f 1_000`: "number<1> number<1.5> number<.5> number<5.> number<1e5> number<1E+5> number<1e-5> number<0x1f> number<1_000>",
		`1+2 1-2`:                              "number<1> punct<+> number<2> number<1> punct<-> number<2>",
		`0x1e+5`:                               "number<0x1e> punct<+> number<5>",
		`? ?12 :a @b $c #d`:                    "param<?> param<?12> param<:a> param<@b> param<$c> param<#d>",
		`a->>b->c||d<=e>=f<>g!=h==i<<j>>k`:     "word<a> punct<->>> word<b> punct<->> word<c> punct<||> word<d> punct<<=> word<e> punct<>=> word<f> punct<<>> word<g> punct<!=> word<h> punct<==> word<i> punct<<<> word<j> punct<>>> word<k>",
		"a -- b\nc /* d */ e/**/f":             "word<a> word<c> word<e> word<f>",
		"a -- to the end":                      "word<a>",
		"/*/ x */ a":                           "word<a>",
		"a/b*c%d&e|~f":                         "word<a> punct</> word<b> punct<*> word<c> punct<%> word<d> punct<&> word<e> punct<|> punct<~> word<f>",
		"t.a, (b);":                            "word<t> punct<.> word<a> punct<,> punct<(> word<b> punct<)> punct<;>",
	} {
		tokens, err := sqltoken.Scan(src)
		if err != nil {
			t.Errorf("%q: %v", src, err)
		} else if got := describe(tokens); got != want {
			t.Errorf("%q:\n got %s\nwant %s", src, got, want)
		}
	}
	for src, want := range map[string]int{`a 'b`: 2, `"`: 0, "x `": 2, `a [b`: 2, `a /* b`: 2, `a /*/`: 2, "a \x00": 2, `a \`: 2, `a !`: 2, `{`: 0, `x'0`: 0, "a\x01": 1} {
		_, err := sqltoken.Scan(src)
		var e *sqltoken.Error
		if !errors.As(err, &e) || e.Pos != want {
			t.Errorf("%q: %#v, want an error at %d", src, err, want)
		}
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	tokens, err := sqltoken.Scan(`Select "a""b" ` + "`c``d`" + ` [e f] 'it''s' 5 =`)
	if err != nil {
		t.Fatal(err)
	}
	var names, values []string
	for _, tok := range tokens {
		names, values = append(names, tok.Name()), append(values, tok.Value())
	}
	if got := strings.Join(names, "|"); got != "Select|a\"b|c`d|e f|||" {
		t.Errorf("names %s", got)
	}
	if got := strings.Join(values, "|"); got != "||||it's||" {
		t.Errorf("values %s", got)
	}
	if !tokens[0].Is("SELECT") || tokens[1].Is(`a"b`) || !tokens[6].IsPunct("=") || tokens[6].IsPunct("==") {
		t.Error("Is or IsPunct is wrong")
	}
}

func TestPosition(t *testing.T) {
	t.Parallel()
	src := "ab\ncd\n\ne"
	for pos, want := range map[int][2]int{0: {1, 1}, 1: {1, 2}, 2: {1, 3}, 3: {2, 1}, 5: {2, 3}, 6: {3, 1}, 7: {4, 1}, 8: {4, 2}, 99: {4, 2}} {
		if line, column := sqltoken.Position(src, pos); line != want[0] || column != want[1] {
			t.Errorf("Position(%d) = %d, %d, want %v", pos, line, column, want)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, src := range []string{"", "SELECT 1", `'a''b' "c" [d] x'00' -- e`, "/* */", "0x1e+5", "1e+", "a->>b", "\xff\x00", "?1 :a", "é"} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		tokens, err := sqltoken.Scan(src)
		if err != nil {
			var e *sqltoken.Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos >= len(src) {
				t.Errorf("%q: %#v", src, err)
			}
			return
		}
		end := 0
		var again []string
		for _, tok := range tokens {
			if tok.Text == "" || tok.Pos < end || src[tok.Pos:tok.Pos+len(tok.Text)] != tok.Text {
				t.Fatalf("%q: token %+v after %d", src, tok, end)
			}
			end = tok.Pos + len(tok.Text)
			again = append(again, tok.Text)
			_, _ = tok.Name(), tok.Value()
		}
		// With a space between all tokens, the text means the same.
		second, err := sqltoken.Scan(strings.Join(again, " "))
		if err != nil || describe(second) != describe(tokens) {
			t.Errorf("%q: %s, and with spaces %s, %v", src, describe(tokens), describe(second), err)
		}
	})
}
