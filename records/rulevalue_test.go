package records_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/records"
)

// values of rules and whether they grant: numbers from 1 up do.
var ruleValues = []struct {
	rule   string
	grants bool
}{
	{`1`, true}, {`2`, true}, {`1.0`, true}, {`1.5`, true}, {`9223372036854775807`, true}, {`1 = 1`, true}, {`NOT 0`, true}, {`(SELECT 3)`, true}, {`+5`, true}, {`9e999`, true}, {`NOT NULL IS NULL`, false},
	{`0`, false}, {`0.0`, false}, {`0.5`, false}, {`0.99`, false}, {`-1`, false}, {`-2.5`, false}, {`-9e999`, false},
	{`NULL`, false}, {`NULL = 1`, false}, {`(SELECT 1 WHERE 0)`, false}, {`1 = 2`, false}, {`NOT 1`, false},
	{`'true'`, false}, {`'1'`, false}, {`'2'`, false}, {`'yes'`, false}, {`''`, false}, {`'1' || ''`, false}, {`"no such column"`, false},
	{`x'01'`, false}, {`x'31'`, false}, {`x''`, false},
	{`abs(-9223372036854775808)`, false}, {`1 = 1 AND abs(-9223372036854775808) > 0`, false}, {`json_extract('{', '$') IS NULL`, false},
	{`'x' REGEXP '('`, false}, {`0 OR json('x')`, false}, {`(SELECT sum(c) FROM (SELECT 9223372036854775807 AS c UNION ALL SELECT 1)) > 0`, false},
	{`(SELECT count(*) FROM (SELECT 1 LIMIT 'x')) >= 0`, false},
	{`typeof(_USER_.id) = 'null'`, true}, {`_USER_.id = 1`, false}, {`_USER_.id IS NULL`, true},
	{`1 IN (1) - 2`, false}, {`like('a', 'a') - 2`, false}, {`- (1 = 1)`, false}, {`'a' LIKE 'a'`, true}, {`'a' LIKE 'A'`, false},
	{`CASE WHEN 1 = 1 THEN 'yes' ELSE 0 END`, false}, {`iif(1 = 1, 1, 0)`, true},
}

// Each operation takes the same values for a yes.
func TestRuleValues(t *testing.T) {
	t.Parallel()
	for _, v := range ruleValues {
		db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE TABLE x (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t(id)) STRICT; INSERT INTO x VALUES (1, 1)`)
		h, err := tryServe(db, records.API{Name: "x", Table: "x", World: records.Read, Expand: []string{"t"}},
			records.API{Name: "t", Table: "t", World: everything, CreateRule: v.rule, ReadRule: v.rule, UpdateRule: v.rule, DeleteRule: v.rule},
			records.API{Name: "check", Table: "t", World: records.Create | records.Update, Check: v.rule},
			records.API{Name: "replace", Table: "t", World: records.Create | records.Update, UpdateRule: v.rule, Conflict: records.Replace},
			records.API{Name: "ignore", Table: "t", World: records.Create | records.Update, CreateRule: v.rule, Conflict: records.Ignore})
		if err != nil {
			if v.grants {
				t.Errorf("%s: %v", v.rule, err)
			}
			continue // refused at once
		}
		before := dump(t, db)
		for _, c := range []struct{ name, method, target, body string }{
			{"read", "GET", "/t/1", ""},
			{"list", "GET", "/t?count=true", ""},
			{"expand", "GET", "/x/1?expand=t", ""},
			{"create", "POST", "/t", `{"v":"c"}`},
			{"create defaults", "POST", "/t", `{}`},
			{"bulk", "POST", "/t", `[{"v":"d"},{"v":"e"}]`},
			{"ignore", "POST", "/ignore", `{"v":"f"}`},
			{"update", "PATCH", "/t/1", `{"v":"g"}`},
			{"empty update", "PATCH", "/t/1", `{}`},
			{"check create", "POST", "/check", `{"v":"h"}`},
			{"check update", "PATCH", "/check/1", `{"v":"i"}`},
			{"replace", "POST", "/replace", `{"id":1,"v":"j"}`},
			{"delete", "DELETE", "/t/2", ""},
		} {
			r := call(h, "", c.method, c.target, c.body)
			granted := r.status == 200
			switch c.name {
			case "list":
				granted = strings.Contains(r.body, `"id"`)
				if r.status != 200 && r.status != 403 || r.status == 200 && granted == strings.Contains(r.body, `"total_count":0`) {
					t.Errorf("rule %s: list: %v", v.rule, r)
				}
			case "expand":
				granted = strings.Contains(r.body, `"data"`)
				if r.status != 200 {
					t.Errorf("rule %s: expand: %v", v.rule, r)
				}
			default:
				if !granted && r.status != 403 {
					t.Errorf("rule %s: %s: %v", v.rule, c.name, r)
				}
			}
			if granted != v.grants {
				t.Errorf("rule %s: %s granted: %v, want %v: %v", v.rule, c.name, granted, v.grants, r)
			}
		}
		if after := dump(t, db); (after == before) == v.grants {
			t.Errorf("rule %s: changed the table: %v", v.rule, after != before)
		}
	}
}

// randomExpression returns an expression without any care for precedence.
func randomExpression(rnd *rand.Rand, depth int) string {
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	leaf := func() string {
		return pick("0", "1", "2", "-1", "0.5", "1.5", "NULL", "'1'", "'2x'", "'x'", "x'31'", "_ROW_.a", "_ROW_.b", "_ROW_.end", "_ROW_.like", "_USER_.id", `"a"`, "''", "'a = b'")
	}
	if depth == 0 {
		return leaf()
	}
	sub := func() string { return randomExpression(rnd, depth-1-rnd.IntN(depth)) }
	switch rnd.IntN(16) {
	case 0, 1, 2:
		return sub() + " " + pick("+", "-", "*", "/", "%", "&", "|", "<<", ">>", "||", "->>") + " " + sub()
	case 3, 4:
		return sub() + " " + pick("=", "==", "<>", "!=", "<", "<=", ">", ">=", "IS", "IS NOT", "AND", "OR", "and", "IS DISTINCT FROM", "IS NOT DISTINCT FROM", "LIKE", "NOT LIKE", "GLOB") + " " + sub()
	case 5:
		return pick("NOT ", "-", "+", "~", "- - ") + sub()
	case 6:
		return sub() + pick(" ISNULL", " NOTNULL", " NOT NULL", " IS NULL", " COLLATE nocase")
	case 7:
		return sub() + pick(" IN ", " NOT IN ") + pick("(1, 2)", "()", "(SELECT a FROM t)", "(NULL)", "("+sub()+")")
	case 8:
		return pick("EXISTS ", "NOT EXISTS ", "") + "(SELECT " + sub() + pick("", " WHERE "+sub(), " FROM t") + ")"
	case 9:
		return "CASE " + pick("", sub()+" ") + "WHEN " + sub() + " THEN " + sub() + pick("", " ELSE "+sub()) + " END"
	case 10:
		return pick("coalesce", "max", "nullif", "like", "glob") + "(" + sub() + ", " + sub() + ")"
	case 11:
		return sub() + pick(" BETWEEN ", " NOT BETWEEN ") + sub() + " AND " + sub()
	case 12:
		return "CAST(" + sub() + " AS " + pick("TEXT", "INTEGER", "REAL") + ")"
	case 13:
		return pick("(VALUES (", "((") + sub() + "))"
	case 14:
		return sub() + " LIKE " + sub() + " ESCAPE 'x'"
	}
	return "(" + sub() + ")"
}

// Whatever the rule, the condition that it becomes is true exactly when its
// value is a number from 1 up.
func TestRuleValuesProperty(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (a INTEGER, b TEXT, "end" INTEGER, "like" INTEGER); INSERT INTO t VALUES (1, '2', 5, 3), (0, 'x', -1, 0), (NULL, NULL, NULL, -7)`)
	rnd := rand.New(rand.NewPCG(5, 6))
	n := 6000
	if testing.Short() {
		n = 1500
	}
	tried, wrong := 0, 0
	for range n {
		src := randomExpression(rnd, 1+rnd.IntN(4))
		r, err := rule.Parse(src, rule.Scope{Names: rule.Row, UserColumn: "id"})
		if err != nil {
			continue
		}
		condition := r.SQL(func() string { return "?1" }, nil)
		plain := strings.NewReplacer("_USER_.id", "?1", "_ROW_.end", `_ROW_."end"`, "_ROW_.like", `_ROW_."like"`).Replace(src)
		query := fmt.Sprintf(`SELECT typeof((%s)), CASE WHEN typeof((%[1]s)) IN ('integer', 'real') THEN (%[1]s) >= 1 ELSE 0 END, CASE WHEN %s THEN 1 ELSE 0 END, 42, ?1 FROM t AS "_ROW_" ORDER BY rowid`, plain, condition)
		err = db.Query(context.Background(), query, []driver.Value{int64(7)}, func(row []driver.Value) error {
			tried++
			if row[1] != row[2] || len(row) != 5 || row[3] != int64(42) {
				return fmt.Errorf("has a value of type %v that grants: %v, but the condition %s is %v", row[0], row[1], condition, row[2])
			}
			return nil
		})
		if err != nil && strings.Contains(err.Error(), "that grants") {
			t.Errorf("%s: %v", src, err)
			if wrong++; wrong == 10 {
				t.Fatal("and so on")
			}
		}
	}
	if tried < n {
		t.Errorf("only %d values were compared", tried)
	}
}

// Whatever is accepted and prepares is one expression: it cannot add a column
// or a statement.
func FuzzRule(f *testing.F) {
	db := openDB(f, `CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT) STRICT; INSERT INTO t VALUES (1, 1, 'x')`)
	sandbox, err := db.Sandbox(context.Background(), func(string) bool { return true })
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = sandbox.Close() })
	for _, v := range ruleValues {
		f.Add(v.rule)
	}
	for _, src := range []string{`1) , (2`, `1)) FROM t; --`, `1 /*`, "1 -- \n", `_ROW_.a = _USER_.id`, `1 ) UNION SELECT (2`, `1 AS x`, "\ufeff1", `"`, `1, 2`} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		r, err := rule.Parse(src, rule.Scope{Names: rule.Row, UserColumn: "id"})
		if err != nil {
			return
		}
		sql := r.SQL(func() string { return "?1" }, nil)
		// As the value of a column there must be one of it, between two others.
		if _, err := sandbox.Prepare(`SELECT 1 FROM t AS "_ROW_" WHERE ` + sql); err != nil {
			return
		}
		if _, err := sandbox.Prepare(`SELECT a, b, c, d FROM (SELECT 1 AS a, ` + sql + ` AS b, 3 AS c, ?2 AS d FROM t AS "_ROW_") WHERE d = ?2 AND b IS NOT 'c'`); err != nil {
			t.Errorf("%q is a condition but not one value: %s: %v", src, sql, err)
		}
	})
}
