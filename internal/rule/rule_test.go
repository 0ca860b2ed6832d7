package rule_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/internal/sqltoken"
)

// everywhere is a scope in which all names may be used.
func everywhere() rule.Scope {
	known := func(name string) bool { return name != "nope" }
	return rule.Scope{Names: rule.Row | rule.Req | rule.Fields, RowColumn: known, ReqColumn: known, UserColumn: "id"}
}

func sqlOf(r *rule.Rule) string {
	return r.SQL(func() string { return "?1" }, func(name string) string { return "<" + name + ">" })
}

func TestSQL(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		`_USER_.id = _ROW_.owner`:                           `(?1 = "_ROW_"."owner")`,
		"_ROW_ . \"we\"\"ird\"\n= _USER_ -- who\n.id":       `("_ROW_"."we""ird" = ?1)`,
		`_REQ_.a IS NULL AND 'b' IN _REQ_FIELDS_`:           `(<a> IS NULL AND 'b' IN _REQ_FIELDS_)`,
		`'b' NOT IN _REQ_FIELDS_`:                           `('b' NOT IN _REQ_FIELDS_)`,
		`EXISTS (SELECT 1 FROM m WHERE m.u = _USER_.id)`:    `(EXISTS ( SELECT 1 FROM m WHERE m . u = ?1 ))`,
		`_USER_.ID IS NOT NULL`:                             `(?1 IS NOT NULL)`,
		`_ROW_.a IS NOT DISTINCT FROM _USER_.id`:            `("_ROW_"."a" IS NOT DISTINCT FROM ?1)`,
		`1`:                                                 `(+(1) BETWEEN 1 AND 9e999)`,
		`_ROW_.level`:                                       `(+("_ROW_"."level") BETWEEN 1 AND 9e999)`,
		`(SELECT 1 FROM m)`:                                 `(+(( SELECT 1 FROM m )) BETWEEN 1 AND 9e999)`,
		`((SELECT 5 WHERE 1 = 1))`:                          `(+(( ( SELECT 5 WHERE 1 = 1 ) )) BETWEEN 1 AND 9e999)`,
		`CASE WHEN 1 = 1 THEN 5 END`:                        `(+(CASE WHEN 1 = 1 THEN 5 END) BETWEEN 1 AND 9e999)`,
		`coalesce(_ROW_.a = 1, 7)`:                          `(+(coalesce ( "_ROW_"."a" = 1 , 7 )) BETWEEN 1 AND 9e999)`,
		`x'00' || '_USER_.id' /* _ROW_ */ || "_"`:           `(+(x'00' || '_USER_.id' || "_") BETWEEN 1 AND 9e999)`,
		`'it''s' = 'a'`:                                     `('it''s' = 'a')`,
		`_ROW_.a ->> '$.b' = 1`:                             `("_ROW_"."a" ->> '$.b' = 1)`,
		`'a' IN (SELECT "_" FROM _REQ_FIELDS_)`:             `('a' IN ( SELECT "_" FROM _REQ_FIELDS_ ))`,
		`(SELECT count(*) FROM _REQ_FIELDS_) = 1`:           `(( SELECT count ( * ) FROM _REQ_FIELDS_ ) = 1)`,
		`EXISTS (SELECT 1 FROM t AS u WHERE u.x = _ROW_.x)`: `(EXISTS ( SELECT 1 FROM t AS u WHERE u . x = "_ROW_"."x" ))`,
	} {
		r, err := rule.Parse(src, everywhere())
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := sqlOf(r); got != want {
			t.Errorf("%s:\n got %s\nwant %s", src, got, want)
		}
		if r.Source() != src {
			t.Errorf("Source() = %q, want %q", r.Source(), src)
		}
	}
}

// A value that only looks logical must be compared, or -1 and 2.5 and text
// would count as true.
func TestNotBoolean(t *testing.T) {
	t.Parallel()
	for _, src := range []string{
		`1 IN (1) + 5`, `1 IN (1) - 2`, `1 IN (SELECT 1) || 'x'`, `'a' IN _REQ_FIELDS_ - 2`, `1 NOT IN (2) * -1`,
		`1 ISNULL - 1`, `1 NOTNULL - 2`, `1 NOT NULL - 2`,
		`5 + NOT 0`, `- NOT 0`, `~ NOT 0`, `5 + NOT 1 = 2`, `'x' || NOT 0`,
		`like('a', 'a') - 2`, `glob('a', 'a') - 2`, `- like('a', 'a')`, `_ROW_.like - 2`, `_ROW_.glob`,
		`coalesce(_ROW_.end = 5, -1)`, `max(_ROW_.end, 2 = 2, 7)`, `(SELECT x.end = 1, -1)`, `max(x.case, (1 = 1), 7)`,
		"\ufeffSELECT 5 WHERE 1 = 1", "(\ufeffSELECT 5 WHERE 1 = 1)",
		`VALUES (5)`, `(VALUES (5))`, `EXISTS (SELECT 1) - 2`, `EXISTS (SELECT 1) + EXISTS (SELECT 1)`, `- EXISTS (SELECT 1)`,
		`(1 = 1) - 2`, `(1 = 1) + (1 = 1)`, `((1) = (1)) * -1`, `CASE 1 = 1 WHEN 1 THEN -1 END`, `+(1 = 1) - 2`,
		`(SELECT -1 WHERE 1 = 1)`, `(WITH x AS (SELECT 1) SELECT -1 WHERE 1 = 1)`, `(VALUES (-1))`, `CAST(1 = 1 AS TEXT)`,
		`(1 = 1) COLLATE nocase || 'x'`, `"a = b"`, `'a = b'`, `x'3d'`, `iif(1 = 1, -1, 0)`, "ıs", "lıke", "ın", "u.ıs",
	} {
		r, err := rule.Parse(src, everywhere())
		if err != nil {
			continue // refusing such a thing is right, too
		}
		if got := sqlOf(r); !strings.HasSuffix(got, " BETWEEN 1 AND 9e999)") {
			t.Errorf("%s is taken for a truth value: %s", src, got)
		}
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	r, err := rule.Parse(`_ROW_.a = 1 AND 'a' IN _REQ_FIELDS_`, everywhere())
	if err != nil {
		t.Fatal(err)
	}
	if !r.Uses(rule.Row) || !r.Uses(rule.Fields) || r.Uses(rule.Req) {
		t.Error("Uses is wrong")
	}
	for src, want := range map[string]bool{`_ROW_.a = 1`: false, `'_USER_.id' = 1`: false, `_ROW_.a IN (SELECT b FROM t WHERE c = _USER_.id)`: true, `_USER_ . "id"`: true} {
		r, err := rule.Parse(src, everywhere())
		if err != nil {
			t.Fatal(err)
		}
		if r.UsesUser() != want {
			t.Errorf("%s: UsesUser is %v", src, !want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		``:                                    "1:1: the rule is empty",
		" -- nothing\n":                       "1:1: the rule is empty",
		`1;`:                                  "1:2: a rule is one expression, without semicolon",
		`1; DROP TABLE t`:                     "1:2: a rule is one expression, without semicolon",
		`1) OR (1`:                            "1:2: parenthesis is not opened",
		`1 = 1) --`:                           "1:6: parenthesis is not opened",
		"(1\n= (2":                            "2:3: parenthesis is not closed",
		`1, 2`:                                "1:2: a rule is one expression, not a list",
		`SELECT 1`:                            "1:1: a rule is an expression; put parentheses around a SELECT",
		`1 FROM t`:                            "1:3: a rule is an expression; put parentheses around a SELECT",
		`1 UNION SELECT 2`:                    "1:3: a rule is an expression; put parentheses around a SELECT",
		`1 LIMIT 1`:                           "1:3: a rule is an expression; put parentheses around a SELECT",
		`1 AS x`:                              "1:3: a rule is an expression; put parentheses around a SELECT",
		`?1`:                                  "1:1: parameters are not allowed in a rule: ?1",
		`a = :name`:                           "1:5: parameters are not allowed in a rule: :name",
		`a = @name`:                           "1:5: parameters are not allowed in a rule: @name",
		`a = $name`:                           "1:5: parameters are not allowed in a rule: $name",
		`'open`:                               "1:1: quote is not closed",
		`1 /* open`:                           "1:3: comment is not closed",
		`[open`:                               "1:1: identifier is not closed",
		"1 = \x00":                            `1:5: unexpected character "\x00"`,
		`1 ! 2`:                               `1:3: unexpected character "!"`,
		`_user_.id = 1`:                       "1:1: write _USER_ in capitals",
		`1 = _Row_.x`:                         "1:5: write _ROW_ in capitals",
		`"_row_".x`:                           "1:1: write _ROW_ in capitals",
		`_USER_`:                              "1:1: _USER_ must be followed by a column, as in _USER_.id",
		`_USER_.email = 1`:                    `1:8: _USER_ has the column id only, not "email"`,
		`_ROW_.nope = 1`:                      `1:7: no column "nope"`,
		`_REQ_.nope = 1`:                      `1:7: no column "nope" in a request`,
		`_ROW_.*`:                             "1:1: _ROW_ must be followed by a column, as in _ROW_.id",
		`count(_ROW_)`:                        "1:7: _ROW_ must be followed by a column, as in _ROW_.id",
		`EXISTS (SELECT 1 FROM _ROW_)`:        "1:23: _ROW_ must be followed by a column, as in _ROW_.id",
		`EXISTS (SELECT 1 FROM t _ROW_)`:      "1:25: _ROW_ must be followed by a column, as in _ROW_.id",
		`(SELECT 1 FROM t AS _ROW_)`:          "1:21: _ROW_ cannot be used as a name",
		`(SELECT 1 AS _USER_)`:                "1:14: _USER_ cannot be used as a name",
		`main._ROW_.x = 1`:                    "1:6: _ROW_ cannot be used as a name",
		`_ROW_._ROW_.x`:                       "",
		`_REQ_.a IN _REQ_FIELDS_`:             "1:12: write 'column' IN _REQ_FIELDS_, with the column's name as a string",
		`"a" IN _REQ_FIELDS_`:                 "1:8: write 'column' IN _REQ_FIELDS_, with the column's name as a string",
		`'nope' IN _REQ_FIELDS_`:              `1:1: no column "nope" in a request`,
		`'nope' NOT IN _REQ_FIELDS_`:          `1:1: no column "nope" in a request`,
		"1 = 1 AND\n  'nope' IN _REQ_FIELDS_": `2:3: no column "nope" in a request`,
	} {
		_, err := rule.Parse(src, everywhere())
		var e *rule.Error
		switch {
		case want == "":
			if err != nil && !errors.As(err, &e) {
				t.Errorf("%q: %T", src, err)
			}
		case err == nil || err.Error() != want:
			t.Errorf("%q:\n got %v\nwant %s", src, err, want)
		case !errors.As(err, &e):
			t.Errorf("%q: the error is a %T", src, err)
		}
	}
	for name, src := range map[rule.Names]string{rule.Row: `_ROW_.a = 1`, rule.Req: `_REQ_.a = 1`, rule.Fields: `'a' IN _REQ_FIELDS_`} {
		s := everywhere()
		s.Names &^= name
		if _, err := rule.Parse(src, s); err == nil || !strings.Contains(err.Error(), "is not available in this rule") {
			t.Errorf("%s where it is not available: %v", src, err)
		}
	}
}

// Whatever is accepted stays inside its parentheses.
func FuzzParse(f *testing.F) {
	for _, src := range []string{
		`_USER_.id = _ROW_.owner`, `'a' IN _REQ_FIELDS_`, `1) OR (1`, `1 -- )`, `'`, `"`, "`a``b`", `[x]]`, `/*/ */ 1`, `x'00'`, `1e+5`,
		`0x1F`, `.5.5`, `a->>'b'`, "\ufeff(", `/**/`, `--`, `a--b`, `(((((`, `)(`, `CASE WHEN 1 THEN 2 END`, `_REQ_."a""b"`, `_ROW_.[x]`, `$a::b(c)`, `#1`, `1;`,
	} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		r, err := rule.Parse(src, everywhere())
		if err != nil {
			var e *rule.Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Line > 1+strings.Count(src, "\n") || e.Column > len(src)+1 {
				t.Errorf("%q: %#v", src, err)
			}
			return
		}
		sql := r.SQL(func() string { return "?1" }, func(string) string { return "?2" })
		tokens, err := sqltoken.Scan(sql)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", src, sql, err)
		}
		depth := 0
		for i, tok := range tokens {
			switch {
			case tok.IsPunct("("):
				depth++
			case tok.IsPunct(")"):
				depth--
			case tok.IsPunct(";"), depth == 1 && tok.IsPunct(","):
				t.Errorf("%q becomes %q", src, sql)
			}
			if depth < 1 && i < len(tokens)-1 || depth < 0 {
				t.Errorf("%q escapes as %q", src, sql)
			}
		}
		if depth != 0 {
			t.Errorf("%q stays open as %q", src, sql)
		}
	})
}
