package records

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

const viewTypesSchema = `
CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, m INTEGER, t TEXT NOT NULL COLLATE NOCASE, u TEXT, r REAL, b BLOB, y ANY, "left" TEXT NOT NULL, c INTEGER REFERENCES c (id),
  j TEXT CHECK (jsonschema_matches('{}', j)), f TEXT CHECK (jsonschema('std.FileUpload', f)), g BLOB CHECK (ST_IsValid(g)), _h TEXT NOT NULL) STRICT;
CREATE TABLE c (id INTEGER PRIMARY KEY, t TEXT NOT NULL, k BLOB NOT NULL UNIQUE CHECK (is_uuid(k))) STRICT;
CREATE TABLE o (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, t TEXT, d DATE) ;
CREATE TABLE empty (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, t TEXT NOT NULL) STRICT;
CREATE TABLE two (x INTEGER NOT NULL, y TEXT, PRIMARY KEY (x, y)) STRICT;
INSERT INTO c VALUES (1, 'one', x'01020304050647088102030405060708'), (2, 'two', x'01020304050647088102030405060709');
INSERT INTO a (id, n, m, t, u, r, b, y, "left", c, _h) VALUES (1, 1, NULL, 'x', NULL, 1.5, x'00', 1, 'l', 1, 'h'), (2, -5, 7, '', 'u', NULL, NULL, 'text', '2', 2, 'h'), (3, 0, 3, '3', '4', 2, x'', 2.5, '', NULL, 'h');
INSERT INTO o VALUES (1, 'not a number', 5, '2020-01-01'), (2, 2.5, x'00', 5), (3, 3, NULL, NULL);
INSERT INTO two VALUES (1, 'a'), (2, 'b');
CREATE VIEW base AS SELECT id, n, m AS mm, t, length(t) AS len FROM a;
`

// viewColumns creates a view and returns its columns as they are described.
func viewColumns(t *testing.T, db *sqlite.DB, definition string) []*column {
	t.Helper()
	err := db.Update(context.Background(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(context.Background(), `DROP VIEW IF EXISTS v; CREATE VIEW v `+definition)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", definition, err)
	}
	var tab *table
	err = db.Read(context.Background(), func(r *sqlite.Reader) (err error) {
		tab, err = describe(r, "main", "v", 0)
		return err
	})
	if err != nil || tab == nil {
		t.Fatalf("%s: %v, %v", definition, tab, err)
	}
	return tab.columns
}

func openTypes(t *testing.T) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "test.db"),
		sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	err = db.Update(context.Background(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(context.Background(), viewTypesSchema)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

var typeNames = map[valueType]string{anyType: "any", numericType: "numeric", integerType: "integer", realType: "real", textType: "text", blobType: "blob"}

// text describes a column in a few words.
func (c *column) text() string {
	words := []string{typeNames[c.typ]}
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	add(c.exact, "exact")
	add(c.notNull, "not null")
	add(c.format == jsonFormat, "json")
	add(c.format == fileFormat, "file")
	add(c.format == geoFormat, "geo")
	add(c.uuid, "uuid")
	add(c.collation != "", c.collation)
	if c.ref != nil {
		words = append(words, "-> "+c.ref.table)
	}
	return strings.Join(words, " ")
}

func TestViewTypes(t *testing.T) {
	t.Parallel()
	db := openTypes(t)
	for _, test := range []struct{ definition, want string }{
		{"AS SELECT id, n, m, t, y, c FROM a", "integer exact not null, integer exact not null, integer exact, text exact not null NOCASE, any, integer exact -> c"},
		{"AS SELECT j, f, g, _h AS h FROM a", "text exact json, text exact file, blob exact geo, text exact not null"},
		{"(p, q) AS SELECT x.id, x.k FROM c AS x", "integer exact not null, blob exact not null uuid"},
		{"AS SELECT x.k k, \"x\".\"t\" 'text', [id] FROM c x", "blob exact not null uuid, text exact not null, integer exact not null"},
		{"AS SELECT * FROM c", "integer exact not null, text exact not null, blob exact not null uuid"},
		{"AS SELECT a.n, c.* FROM a, main.c", "integer exact not null, integer exact not null, text exact not null, blob exact not null uuid"},
		{"AS SELECT a.t, c.t FROM a JOIN c ON c.id = a.c", "text exact not null NOCASE, text exact not null"},
		{"AS SELECT a.n, c.t FROM a LEFT JOIN c ON c.id = a.c", "integer exact not null, text exact"},
		{"AS SELECT a.n, c.t FROM a LEFT OUTER JOIN c ON c.id = a.\"left\" AND a.left IS NOT NULL", "integer exact not null, text exact"},
		{"AS SELECT a.n, c.t FROM a RIGHT JOIN c ON c.id = a.c", "integer exact, text exact not null"},
		{"AS SELECT a.n, c.t FROM a FULL JOIN c ON c.id = a.c", "integer exact, text exact"},
		{"AS SELECT a.n, c.t, e.n FROM a CROSS JOIN c LEFT JOIN empty e ON 1", "integer exact not null, text exact not null, integer exact"},
		{"AS SELECT n, k FROM a JOIN c USING (id)", "integer exact not null, blob exact not null uuid"},
		{"AS SELECT id, k FROM a JOIN c USING (id)", "integer, blob exact not null uuid"},
		{"AS SELECT id, k FROM a NATURAL JOIN c", "integer, blob exact not null uuid"},
		{"AS SELECT mm, len, base.t FROM base", "integer exact, integer exact not null, text exact not null NOCASE"},
		{"AS SELECT id, n, t FROM o", "integer exact not null, integer not null, text"},
		{"AS SELECT x, y FROM two", "integer exact not null, text exact not null"},

		{"AS SELECT count(*) AS n, max(n), sum(m), sum(r), avg(n), total(n), min(t), group_concat(t) FROM a", "integer exact not null, integer exact, integer exact, real exact, real exact, real exact not null, text exact, text exact"},
		{"AS SELECT c, count(*) FILTER (WHERE n > 0), count(DISTINCT n), sum(DISTINCT n), t FROM a GROUP BY c", "integer exact -> c, integer exact not null, integer exact not null, integer exact, text exact not null NOCASE"},
		{"AS SELECT n, count(*) FROM empty", "integer exact, integer exact not null"},
		{"AS SELECT n FROM empty ORDER BY count(*)", "integer exact"},
		{"AS SELECT count(*) OVER (ORDER BY n), count(*) OVER w, sum(n) OVER w FROM a WINDOW w AS (ORDER BY id)", "integer exact not null, integer exact not null, any"},
		{"AS SELECT sum(n), max(t), abs(n) FROM o", "any, any, any"},
		{"AS SELECT coalesce(u, ''), coalesce(m, n), ifnull(u, t), coalesce(m, u), iif(n, 1, 2), nullif(t, '') FROM a", "text exact not null, integer exact not null, text exact not null, any, integer exact not null, text exact"},
		{"AS SELECT length(t), length(u), upper(t), hex(b), typeof(y), abs(n), round(n), substr(t, 1), instr(t, 'x'), replace(t, 'a', 'b') FROM a GROUP BY id",
			"integer exact not null, integer exact, text exact not null, text exact not null, text exact not null, integer exact not null, real exact, text exact, integer exact, text exact"},
		{"AS SELECT 1, -2, 1.5, 'x', x'00', NULL, 9223372036854775808, 0x10, (3), 1e3 AS e", "integer exact not null, integer exact not null, real exact not null, text exact not null, blob exact not null, any, any, any, integer exact not null, real exact not null"},
		{"AS SELECT CAST(n AS TEXT), CAST(y AS INTEGER) i, CAST(u AS REAL) AS r, CAST(u AS BLOB) FROM a WHERE (n > 0)", "text exact not null, integer exact, real exact, blob exact"},
		{"AS SELECT EXISTS (SELECT 1 FROM c) AS e, (SELECT n FROM a LIMIT 1) FROM c", "integer exact not null, integer"},

		// What is not understood stays as it was.
		{"AS SELECT n ISNULL, n NOTNULL, NOT n, n + 1, t || 'x', n IS NOT DISTINCT FROM 1, CASE WHEN n THEN n END FROM a", "any, any, any, any, any, any, any"},
		{"AS SELECT id, t FROM a UNION SELECT id, t FROM c", "integer, text"},
		{"AS WITH w AS (SELECT id, t FROM a) SELECT id, t FROM w", "integer, text"},
		{"AS SELECT id, t FROM (SELECT id, t FROM a)", "integer, text"},
		{"AS SELECT value AS v FROM a, json_each(a.j)", "blob"},
		{"AS SELECT t COLLATE NOCASE AS t, +n AS n FROM a", "text, any"},
		{"AS VALUES (1, 'x')", "any, any"},
	} {
		var got []string
		for _, c := range viewColumns(t, db, test.definition) {
			got = append(got, c.text())
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.definition, strings.Join(got, ", "), test.want)
		}
	}
}

// Whatever a view is made of, its values are of the types that were inferred.
func TestViewTypesHold(t *testing.T) {
	t.Parallel()
	db := openTypes(t)
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	valid, inferred := 0, 0
	for range rounds {
		definition := randomView(random)
		columns := viewColumnsOrNil(t, db, definition)
		if columns == nil {
			continue // not SQL after all
		}
		valid++
		var list []string
		for _, c := range columns {
			list = append(list, `typeof(`+quote(c.name)+`)`)
		}
		err := db.Read(context.Background(), func(r *sqlite.Reader) error {
			return r.Query("SELECT "+strings.Join(list, ",")+" FROM v", nil, func(row []driver.Value) error {
				for i, c := range columns {
					class := row[i].(string)
					if class == "null" && c.notNull || class != "null" && c.exact && class != typeNames[c.typ] {
						t.Errorf("CREATE VIEW v %s: column %d is %s, but a value is %s", definition, i, c.text(), class)
					}
				}
				return nil
			})
		})
		if err != nil {
			continue // such as an overflow
		}
		for _, c := range columns {
			if c.exact || c.notNull {
				inferred++
			}
		}
	}
	t.Logf("%d columns inferred in %d views", inferred, valid)
	if inferred < rounds/3 {
		t.Errorf("only %d columns inferred in %d views", inferred, valid)
	}
}

// viewColumnsOrNil is viewColumns for a definition that may be invalid.
func viewColumnsOrNil(t *testing.T, db *sqlite.DB, definition string) []*column {
	t.Helper()
	err := db.Update(context.Background(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(context.Background(), `DROP VIEW IF EXISTS v; CREATE VIEW v `+definition)
		if err != nil {
			return err
		}
		rows, err := tx.QueryContext(context.Background(), `SELECT 1 FROM v LIMIT 1`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		rows.Next()
		return rows.Err()
	})
	if err != nil {
		return nil
	}
	return viewColumns(t, db, definition)
}

// randomView returns AS SELECT … of a few tables.
func randomView(random *rand.Rand) string {
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	names := []string{"a", "c", "o", "empty", "two", "base"}
	columns := map[string][]string{
		"a": {"id", "n", "m", "t", "u", "r", "b", "y", `"left"`}, "c": {"id", "t", "k"}, "o": {"id", "n", "t", "d"},
		"empty": {"id", "n", "t"}, "two": {"x", "y"}, "base": {"id", "n", "mm", "t", "len"},
	}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+random.IntN(3)]
	var from strings.Builder
	var known []string
	for i, name := range names {
		if i > 0 {
			from.WriteString(pick(", ", " JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " FULL OUTER JOIN ", " CROSS JOIN ", " NATURAL JOIN ", " NATURAL LEFT JOIN "))
		}
		alias := pick(name, fmt.Sprintf("s%d", i))
		from.WriteString(name)
		if alias != name {
			from.WriteString(pick(" ", " AS ") + alias)
		}
		if i > 0 && random.IntN(2) == 0 && !strings.Contains(from.String(), "NATURAL") {
			from.WriteString(pick(" ON 1", " ON 0", " ON "+alias+".rowid = 1", " USING (id)"))
		}
		for _, c := range columns[name] {
			known = append(known, pick(c, alias+"."+c))
		}
	}
	var expression func(depth int) string
	expression = func(depth int) string {
		if depth == 0 || random.IntN(3) == 0 {
			return pick(append(slices.Clone(known), "1", "-2", "1.5", "'x'", "x'00'", "NULL", "TRUE", "CURRENT_DATE", `"none"`)...)
		}
		e := func() string { return expression(depth - 1) }
		switch random.IntN(8) {
		case 0:
			return pick("count", "sum", "min", "max", "avg", "total", "group_concat") + "(" + pick("", "DISTINCT ") + e() + ")" + pick("", "", " FILTER (WHERE 1)", " OVER ()")
		case 1:
			return pick("coalesce", "ifnull", "min", "max", "nullif", "substr", "instr", "round", "trim", "strftime", "printf") + "(" + e() + ", " + e() + ")"
		case 2:
			return pick("length", "octet_length", "upper", "lower", "trim", "hex", "quote", "typeof", "abs", "round", "unicode", "sign", "date", "julianday", "json_array_length") + "(" + e() + ")"
		case 3:
			return "CAST(" + e() + " AS " + pick("INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC", "VARCHAR(10)") + ")"
		case 4:
			return pick("iif", "replace") + "(" + e() + ", " + e() + ", " + e() + ")"
		case 5:
			return "(" + e() + ")"
		case 6:
			return e() + pick(" + ", " || ", " = ", " IS ", " AND ", " -> ", " IS NOT DISTINCT FROM ") + e()
		}
		return pick("NOT ", "- ", "+ ", "~ ") + e() + pick("", " ISNULL", " NOTNULL", " COLLATE NOCASE")
	}
	var items []string
	for i := range 1 + random.IntN(4) {
		item := expression(2)
		if random.IntN(8) == 0 {
			item = "*"
		} else {
			item += pick("", fmt.Sprintf(" AS x%d", i), fmt.Sprintf(" x%d", i), fmt.Sprintf(" 'x%d'", i))
		}
		items = append(items, item)
	}
	return "AS SELECT " + pick("", "DISTINCT ") + strings.Join(items, ", ") + " FROM " + from.String() +
		pick("", "", " WHERE 0", " WHERE (1)") + pick("", "", " GROUP BY 1", " GROUP BY "+known[0]+" HAVING count(*) > 0", " ORDER BY count(*)", " LIMIT 5")
}
