package rule_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/rule"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		src, op string
		parts   []string
	}{
		{`a = 1`, "", []string{`a = 1`}},
		{` ( (a = 1) ) `, "", []string{`a = 1`}},
		{`(SELECT 1 AND 2)`, "", []string{`(SELECT 1 AND 2)`}},
		{`( (VALUES (1)) )`, "", []string{`(VALUES (1))`}},
		{`a and b AND (c OR d)`, "AND", []string{`a`, `b`, `(c OR d)`}},
		{`a AND b OR c AND d`, "OR", []string{`a AND b`, `c AND d`}},
		{`(a AND b)`, "AND", []string{`a`, `b`}},
		{`(a) AND (b)`, "AND", []string{`(a)`, `(b)`}},
		{`NOT a AND b`, "AND", []string{`NOT a`, `b`}},
		{`NOT (a AND b)`, "", []string{`NOT (a AND b)`}},
		{`a BETWEEN 1 AND 2`, "", []string{`a BETWEEN 1 AND 2`}},
		{`a BETWEEN 1 AND 2 AND b`, "AND", []string{`a BETWEEN 1 AND 2`, `b`}},
		{`a NOT BETWEEN (1 AND 1) AND 2 OR b`, "OR", []string{`a NOT BETWEEN (1 AND 1) AND 2`, `b`}},
		{`CASE WHEN a AND b THEN 1 ELSE 0 END AND c`, "AND", []string{`CASE WHEN a AND b THEN 1 ELSE 0 END`, `c`}},
		{`CASE WHEN a BETWEEN 1 AND 2 THEN 1 END`, "", []string{`CASE WHEN a BETWEEN 1 AND 2 THEN 1 END`}},
		{`_ROW_.end = 1 AND "and" = 'or'`, "AND", []string{`_ROW_.end = 1`, `"and" = 'or'`}},
		{`end = 1 AND b`, "", []string{`end = 1 AND b`}},
		{"a -- AND x\n AND b -- c", "AND", []string{`a`, `b`}},
		{`EXISTS (SELECT 1 FROM t WHERE a AND b) OR c`, "OR", []string{`EXISTS (SELECT 1 FROM t WHERE a AND b)`, `c`}},
		{`AND`, "", []string{`AND`}},
		{`a AND`, "", []string{`a AND`}},
		{`'`, "", []string{`'`}},
		{``, "", []string{``}},
	} {
		if op, parts := rule.Split(test.src); op != test.op || !slices.Equal(parts, test.parts) {
			t.Errorf("Split(%q) = %q, %q, want %q, %q", test.src, op, parts, test.op, test.parts)
		}
	}
}

// The parts stand in the expression one behind the other, and nothing is lost
// but operators, parentheses and comments.
func FuzzSplit(f *testing.F) {
	for _, src := range []string{`a AND b OR c`, `(a) AND (b)`, `a BETWEEN 1 AND 2 AND b`, `CASE WHEN a AND b THEN 1 END OR c`, `((a AND b))`, `AND`, `OR OR`, `)(`, `'`, `end AND case`} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		op, parts := rule.Split(src)
		if (op == "") != (len(parts) == 1) {
			t.Errorf("%q: %q %q", src, op, parts)
		}
		rest := src
		for _, p := range parts {
			_, after, ok := strings.Cut(rest, p)
			if !ok || p == "" && src != "" {
				t.Errorf("%q: %q %q", src, op, parts)
			}
			rest = after
		}
	})
}
