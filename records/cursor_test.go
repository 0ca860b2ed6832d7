package records_test

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// orderedSchema has a column of every kind, in both kinds of tables.
var orderedSchema = []string{
	`CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, r REAL, s TEXT, n TEXT COLLATE NOCASE, b BLOB, a ANY, nn INTEGER NOT NULL, g TEXT AS (substr(s, 1, 1)), "od d""d" TEXT) STRICT`,
	`CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, i INT, r DOUBLE, s VARCHAR(9), n TEXT COLLATE NOCASE, b BLOB, a, nn BOOLEAN NOT NULL, g DATETIME)`,
	`CREATE TABLE t (id TEXT PRIMARY KEY COLLATE NOCASE, i INTEGER, r REAL, s TEXT COLLATE RTRIM, n TEXT COLLATE NOCASE, b BLOB, a ANY, nn TEXT NOT NULL, g INT) STRICT, WITHOUT ROWID`,
	`CREATE TABLE t (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid(id)), i NUMERIC, r REAL, s TEXT, n TEXT COLLATE NOCASE, b BLOB, a DATE, nn INTEGER NOT NULL, g TIMESTAMP)`,
}

var orderable = []string{"id", "i", "r", "s", "n", "b", "a", "nn", "g"}

// someValues are few, so that there are duplicates, and awkward.
var someValues = map[string][]string{
	"i":  {"NULL", "NULL", "0", "1", "-1", "9223372036854775807", "-9223372036854775808", "7"},
	"r":  {"NULL", "0.0", "-0.0", "1.5", "9e999", "-9e999", "5.0", "1e-300", "0.1", "9007199254740993.0"},
	"s":  {"NULL", "NULL", "''", "'a'", "'A'", "'a '", "'ä'", "'1'", "'x' || char(0) || 'y'", "'" + strings.Repeat("long", 9) + "'"},
	"n":  {"NULL", "'a'", "'A'", "'b'", "'B'", "'É'"},
	"b":  {"NULL", "x''", "x'00'", "x'ff'", "x'0001'"},
	"a":  {"NULL", "1", "1.0", "'1'", "x'31'", "'a'", "2.5", "''", "-3"},
	"nn": {"0", "1", "2"},
	"g":  {"NULL", "1", "5", "17"},
}

// fill inserts n random rows with ids from first.
func fill(t testing.TB, db *sqlite.DB, rnd *rand.Rand, kind, first, n int) {
	t.Helper()
	pick := func(name string) string { return someValues[name][rnd.IntN(len(someValues[name]))] }
	err := db.Update(context.Background(), func(tx *sqlite.Tx) error {
		for i := range n {
			id := strconv.Itoa((first + i) * 3)
			switch kind {
			case 1, 2:
				id = fmt.Sprintf("'%s-%d'", string("aAzZä/%"[rnd.IntN(4)]), first+i)
			case 3:
				id = fmt.Sprintf("x'%04x0000000040008000%012x'", rnd.IntN(65536), first+i)
			}
			names, values := []string{"id"}, []string{id}
			for _, name := range orderable[1:] {
				if name == "g" && kind == 0 {
					continue
				}
				names, values = append(names, name), append(values, pick(name))
			}
			_, err := tx.ExecContext(context.Background(), `INSERT INTO t (`+strings.Join(names, ",")+`) VALUES (`+strings.Join(values, ",")+`)`)
			if err != nil {
				return fmt.Errorf("%s: %w", values, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// randomOrder returns the value of the parameter and the ORDER BY of the same
// meaning. What is equal in all columns comes in the order of the key, or of
// insertion where the key is not the rowid.
func randomOrder(rnd *rand.Rand, kind int) (param, orderBy string) {
	var params, terms []string
	names := slices.Clone(orderable)
	rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	dir := ""
	for _, name := range names[:1+rnd.IntN(3)] {
		dir = []string{"", "-"}[rnd.IntN(2)]
		params = append(params, dir+name)
		terms = append(terms, name+map[string]string{"": "", "-": " DESC"}[dir])
	}
	last := "id"
	if (kind == 1 || kind == 3) && !slices.Contains(names[:len(params)], "id") {
		last = "rowid"
	}
	terms = append(terms, last+map[string]string{"": "", "-": " DESC"}[dir])
	return strings.Join(params, ","), strings.Join(terms, ", ")
}

// keysInOrder returns the ids as the API prints them.
func keysInOrder(t testing.TB, db *sqlite.DB, orderBy string) []string {
	t.Helper()
	var ids []string
	for _, row := range rowsOf(t, db, `SELECT CASE typeof(id) WHEN 'blob' THEN hex(id) WHEN 'text' THEN '"' || id || '"' ELSE id END, typeof(id) FROM t ORDER BY `+orderBy) {
		if id := row[0]; row[1] == "blob" {
			ids = append(ids, strconv.Quote(base64.URLEncoding.EncodeToString(unhex(id))))
		} else {
			ids = append(ids, id)
		}
	}
	return ids
}

func unhex(s string) []byte {
	b := make([]byte, len(s)/2)
	for i := range b {
		n, err := strconv.ParseUint(s[2*i:2*i+2], 16, 8)
		if err != nil {
			panic(err)
		}
		b[i] = byte(n)
	}
	return b
}

// Walking all pages yields each row once, in the order that SQL gives,
// whatever the order and the size of the pages.
func TestCursorWalk(t *testing.T) {
	t.Parallel()
	for kind, schema := range orderedSchema {
		t.Run(strconv.Itoa(kind), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, uint64(kind)))
			db := openDB(t, schema)
			fill(t, db, rnd, kind, 1, 60)
			h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
			rounds := 40
			if testing.Short() {
				rounds = 8
			}
			for range rounds {
				param, orderBy := randomOrder(rnd, kind)
				limit := 1 + rnd.IntN(25)
				all := keysInOrder(t, db, orderBy)
				target := fmt.Sprintf("/t?order=%s&limit=%d", param, limit)
				if got := walk(t, h, target, nil); !slices.Equal(got, all) {
					t.Fatalf("%s:\n got %v\nwant %v", target, got, all)
				}
				// An offset counts from the cursor.
				at, skip := rnd.IntN(len(all)-1), rnd.IntN(30)
				c := list(t, h, "", fmt.Sprintf("/t?order=%s&limit=%d", param, at+1)).Cursor
				target = fmt.Sprintf("/t?order=%s&limit=%d&offset=%d", param, limit, skip)
				rest := all[min(at+1+skip, len(all)):]
				if got := list(t, h, "", target+"&cursor="+c).column(t, "id"); !slices.Equal(got, rest[:min(limit, len(rest))]) {
					t.Errorf("%s after %d rows:\n got %v\nwant %v", target, at+1, got, rest[:min(limit, len(rest))])
				}
			}
		})
	}
}

// walk reads all pages; between calls something else, before the next one.
func walk(t testing.TB, h http.Handler, target string, between func()) (ids []string) {
	t.Helper()
	cursor := ""
	for {
		next := target
		if cursor != "" {
			next += "&cursor=" + url.QueryEscape(cursor)
		}
		p := list(t, h, "", next)
		ids = append(ids, p.column(t, "id")...)
		if len(p.Records) == 0 {
			if p.Cursor != "" {
				t.Errorf("%s: an empty page has a cursor", target)
			}
			return ids
		}
		if p.Cursor == "" {
			t.Fatalf("%s: a page with records has no cursor", target)
		}
		if len(ids) > 5000 {
			t.Fatalf("%s: does not end: … %v", target, ids[len(ids)-20:])
		}
		cursor = p.Cursor
		if between != nil {
			between()
		}
	}
}

// Rows that come and go while a list is walked disturb no other row.
func TestCursorWalkWhileWriting(t *testing.T) {
	t.Parallel()
	for _, kind := range []int{0, 1, 2} {
		t.Run(strconv.Itoa(kind), func(t *testing.T) {
			t.Parallel()
			walkWhileWriting(t, kind)
		})
	}
}

func walkWhileWriting(t *testing.T, kind int) {
	rnd := rand.New(rand.NewPCG(3, uint64(kind)))
	db := openDB(t, orderedSchema[kind])
	fill(t, db, rnd, kind, 1, 60)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	next := 1000
	for range 10 {
		param, orderBy := randomOrder(rnd, kind)
		before := keysInOrder(t, db, orderBy)
		calls := 0
		got := walk(t, h, "/t?limit=9&order="+param, func() {
			if calls++; calls > 9 {
				return // or a walk upwards would never reach the end
			}
			fill(t, db, rnd, kind, next, 2)
			execSQL(t, db, `DELETE FROM t WHERE id = ?1 OR id LIKE ?2`, next*3, fmt.Sprintf("%%-%d", next))
			next += 2
		})
		known := map[string]bool{}
		for _, id := range before {
			known[id] = true
		}
		seen := map[string]bool{}
		var old []string
		for _, id := range got {
			if seen[id] {
				t.Errorf("order %s: %s comes twice", param, id)
			}
			seen[id] = true
			if known[id] {
				old = append(old, id)
			}
		}
		if !slices.Equal(old, before) {
			t.Errorf("order %s:\n got %v\nwant %v", param, old, before)
		}
		execSQL(t, db, `DELETE FROM t WHERE id >= 3000 AND typeof(id) = 'integer' OR id LIKE '%-____'`)
	}
}

// VACUUM may renumber the rows of a table whose key is not the rowid.
func TestCursorSurvivesVacuum(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, s TEXT) STRICT;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) INSERT INTO t SELECT printf('%c%d', 122 - i % 20, i), 's' FROM n;
		DELETE FROM t WHERE rowid % 3 = 0`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	own := sql.OpenDB(db.Connector())
	defer func() { _ = own.Close() }()
	for _, dir := range []string{"", "-"} {
		before := keysInOrder(t, db, map[string]string{"": "rowid", "-": "rowid DESC"}[dir])
		got := walk(t, h, "/t?limit=7&order="+dir+"s", func() {
			if _, err := own.ExecContext(context.Background(), `VACUUM`); err != nil {
				t.Error(err)
			}
		})
		if !slices.Equal(got, before) {
			t.Errorf("got %v\nwant %v", got, before)
		}
		// The row that the cursor stands on is gone.
		got = walk(t, h, "/t?limit=1&order="+dir+"s", func() {
			execSQL(t, db, `DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY rowid `+map[string]string{"": "", "-": "DESC"}[dir]+` LIMIT 1)`)
		})
		if !slices.Equal(got, before) {
			t.Errorf("got %v\nwant %v", got, before)
		}
		execSQL(t, db, `INSERT INTO t VALUES ('x', 's'), ('b', 's'), ('y', 's'), ('a', 's'), ('m', 's'); INSERT INTO t SELECT id || '1', s FROM t; INSERT INTO t SELECT id || '2', s FROM t; DELETE FROM t WHERE rowid % 4 = 1`)
	}
}

// The row that a cursor stands on is deleted and made anew, under the same key
// and at another place. All other rows still come once each.
func TestCursorWhoseRowIsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", "-"} {
		db := openDB(t, `CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, s TEXT) STRICT;
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT 'k' || i, 's' FROM n`)
		h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
		seen := map[string]int{}
		anew := map[string]bool{}
		cursor := ""
		for range 30 {
			target := "/t?limit=4&order=" + dir + "s"
			if cursor != "" {
				target += "&cursor=" + cursor
			}
			p := list(t, h, "", target)
			ids := p.column(t, "id")
			for _, id := range ids {
				seen[id]++
			}
			if len(ids) == 0 {
				break
			}
			cursor = p.Cursor
			last := strings.Trim(ids[len(ids)-1], `"`)
			if !anew[`"`+last+`"`] {
				execSQL(t, db, `DELETE FROM t WHERE id = ?1`, last)
				execSQL(t, db, `INSERT INTO t VALUES (?1, 's')`, last)
			}
			anew[`"`+last+`"`] = true
		}
		wrong := 0
		for i := range 40 {
			if id := fmt.Sprintf(`"k%d"`, i+1); seen[id] != 1 && !anew[id] {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("order %ss: %d rows that nobody touched do not come once: %v", dir, wrong, seen)
		}
	}
}

func TestCursorSurvivesReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	apis := []records.API{{Name: "t", Table: "t", World: records.Read}}
	first, err := sqlite.Open(context.Background(), path, sqlite.Options{Ballast: -1, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, first, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT) STRICT; INSERT INTO t VALUES (1, 'c'), (2, 'b'), (3, 'a')`)
	c := list(t, serve(t, first, apis...), "", "/t?order=s&limit=1").Cursor
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	h := serve(t, openFile(t, path, "", sqlite.Options{}), apis...)
	if got := list(t, h, "", "/t?order=s&cursor="+c).column(t, "id"); !slices.Equal(got, []string{"2", "1"}) {
		t.Errorf("after reopening: %v", got)
	}

	// A key of the application's own does not depend on the file.
	key := []byte(strings.Repeat("k", 32))
	schema := `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT) STRICT; INSERT INTO t VALUES (1, 'c'), (2, 'b'), (3, 'a')`
	a := serveConfig(t, openDB(t, schema), records.Config{APIs: apis, CursorKey: key})
	b := serveConfig(t, openDB(t, schema), records.Config{APIs: apis, CursorKey: key})
	other := serve(t, openDB(t, schema), apis...)
	c = list(t, a, "", "/t?limit=1").Cursor
	wantStatus(t, get(b, "", "/t?cursor="+c), 200)
	want(t, get(other, "", "/t?cursor="+c), 400, "Bad cursor")
}

// A cursor is good for one API, one order and one caller, as it is.
func TestCursorIsBound(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, u TEXT, _h TEXT) STRICT; INSERT INTO t VALUES (1, 'c', 'x', 'h'), (2, 'b', 'y', 'h'), (3, 'a', 'z', 'h')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read}, records.API{Name: "t2", Table: "t", World: records.Read},
		records.API{Name: "v", Table: "t", World: records.Read, Exclude: []string{"u"}})
	c := list(t, h, "alice", "/t?order=s&limit=1").Cursor
	wantStatus(t, get(h, "alice", "/t?order=s&cursor="+c), 200)
	wantStatus(t, get(h, "alice", "/t?order=%2Bs&cursor="+c), 200)
	wantStatus(t, get(h, "alice", "/t?order=s&filter[s]=b&cursor="+c), 200)
	for _, bad := range [][2]string{
		{"bob", "/t?order=s&cursor="}, {"", "/t?order=s&cursor="}, {"1", "/t?order=s&cursor="}, {"x:616c696365", "/t?order=s&cursor="},
		{"alice", "/t?order=-s&cursor="}, {"alice", "/t?order=u&cursor="}, {"alice", "/t?order=s,u&cursor="},
		{"alice", "/t?order=s,-id&cursor="}, {"alice", "/t?cursor="}, {"alice", "/t2?order=s&cursor="}, {"alice", "/v?order=s&cursor="},
	} {
		want(t, get(h, bad[0], bad[1]+c), 400, "Bad cursor")
	}
	for _, bad := range []string{"", "A", "AAAA", "!", "%00", c + "=", c[1:], c[:len(c)-1], c + c, c[4:], strings.TrimRight(c, "=") + "A===", "%0A" + c, c + "%0d", "null", "1"} {
		if r := get(h, "alice", "/t?order=s&cursor="+bad); r.status != 400 {
			t.Errorf("cursor %q: %v", bad, r)
		}
	}
	want(t, get(h, "alice", "/t?order=s&limit=1&cursor=***"), 400, "Bad cursor: b64")

	// An id that is text is not the same caller as one that is bytes.
	c = list(t, h, "x:010203", "/t?limit=1").Cursor
	want(t, get(h, "AQID", "/t?cursor="+c), 400, "Bad cursor")
}

func TestCursorBitFlips(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT) STRICT; INSERT INTO t VALUES (1, 'c'), (2, 'b'), (3, 'a')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	c := list(t, h, "", "/t?order=s&limit=1").Cursor
	raw, err := base64.URLEncoding.DecodeString(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		flipped := slices.Clone(raw)
		flipped[i/8] ^= 1 << (i % 8)
		want(t, get(h, "", "/t?order=s&cursor="+base64.URLEncoding.EncodeToString(flipped)), 400, "Bad cursor")
	}
	for i := range len(c) * 7 {
		flipped := []byte(c)
		flipped[i/7] ^= 1 << (i % 7)
		if r := get(h, "", "/t?order=s&cursor="+url.QueryEscape(string(flipped))); r.status != 400 {
			t.Errorf("bit %d of the text flipped: %v", i, r)
		}
	}
	for n := range raw {
		if r := get(h, "", "/t?order=s&cursor="+base64.URLEncoding.EncodeToString(raw[:n])); r.status != 400 {
			t.Errorf("cut to %d bytes: %v", n, r)
		}
	}
}

// Values that are too long for a cursor are told so, and can be listed
// without one.
func TestCursorOfLongValues(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT) STRICT; INSERT INTO t VALUES (1, printf('%.*c', 3000, 'x')), (2, 'b')`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	wantStatus(t, get(h, "", "/t?order=-s&limit=1"), 400)
	wantStatus(t, get(h, "", "/t?order=-s&limit=1&skip_cursor=true"), 200)
	wantStatus(t, get(h, "", "/t?limit=1"), 200)
}

// A million rows, page after page: memory stays flat, and a page costs the
// same at the end as at the beginning.
func TestCursorMillionRows(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a table of a million rows")
	}
	const rows, limit = 1_000_000, 1024
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT NOT NULL) STRICT;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) INSERT INTO t SELECT i, 'row ' || i FROM n`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: records.Read})
	var before, during runtime.MemStats
	var peak uint64
	cursor, seen, last := "", 0, rows+1
	pages := 0
	var early, late string // pages
	runtime.GC()
	runtime.ReadMemStats(&before)
	for {
		target := "/t?limit=" + strconv.Itoa(limit)
		if cursor != "" {
			target += "&cursor=" + cursor
		}
		r := get(h, "", target)
		if r.status != 200 {
			t.Fatal(r)
		}
		head, body, _ := strings.Cut(r.body, `"records":[`)
		if n := strings.Count(body, `{"id":`); n == 0 {
			break
		} else {
			seen += n
		}
		var first int
		if _, err := fmt.Sscanf(body, `{"id":%d,`, &first); err != nil || first != last-1 {
			t.Fatalf("page begins with %d after %d: %v", first, last, err)
		}
		if _, err := fmt.Sscanf(body[strings.LastIndex(body, `{"id":`):], `{"id":%d,`, &last); err != nil {
			t.Fatal(err)
		}
		cursor = strings.TrimSuffix(strings.TrimPrefix(head, `{"cursor":"`), `",`)
		if pages++; pages == 2 {
			early = target
		}
		if seen < rows {
			late = target
		}
		if pages%100 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&during)
			peak = max(peak, during.HeapAlloc)
		}
	}
	if seen != rows {
		t.Errorf("%d rows, want %d", seen, rows)
	}
	if growth := int64(peak) - int64(before.HeapAlloc); growth > 8<<20 {
		t.Errorf("the heap grew by %d KiB", growth>>10)
	}
	// In turn, so that whatever else the machine does is in both.
	took := map[string][]time.Duration{}
	for range 100 {
		for _, target := range []string{early, late} {
			start := time.Now()
			get(h, "", target)
			took[target] = append(took[target], time.Since(start))
		}
	}
	first, end := median(took[early]), median(took[late])
	t.Logf("%d pages, median %v at first, %v at last; heap from %d to %d KiB", pages, first, end, before.HeapAlloc>>10, peak>>10)
	if end > 4*first {
		t.Errorf("a page takes %v at first and %v at last", first, end)
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}
