package records_test

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

var bg = context.Background()

// view returns the view of a subscription to all records.
func view(t testing.TB, svc *records.Service, api, query string) *records.View {
	t.Helper()
	sub, err := svc.Subscribe(bg, api, "*", query)
	if err != nil {
		t.Fatalf("%s?%s: %v", api, query, err)
	}
	return sub.View
}

func scratch(t testing.TB, db *sqlite.DB) *sqlite.Scratch {
	t.Helper()
	q, err := db.Scratch(bg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// rowsAs returns the rows of a table as a change log has them.
func rowsAs(t testing.TB, db *sqlite.DB, table string) (columns []string, rows [][]driver.Value) {
	t.Helper()
	err := db.Query(bg, "SELECT name FROM pragma_table_xinfo(?1)", []driver.Value{table}, func(row []driver.Value) error {
		columns = append(columns, row[0].(string))
		return nil
	})
	if err == nil {
		var quoted []string
		for _, name := range columns {
			quoted = append(quoted, `+"`+strings.ReplaceAll(name, `"`, `""`)+`"`)
		}
		err = db.Query(bg, `SELECT `+strings.Join(quoted, ",")+` FROM "`+table+`" ORDER BY 1`, nil, func(row []driver.Value) error {
			rows = append(rows, slices.Clone(row))
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return columns, rows
}

// inserts returns a change per row, from the sequence number first on.
func inserts(table string, columns []string, first int64, rows ...[]driver.Value) []*sqlite.Change {
	changes := make([]*sqlite.Change, len(rows))
	for i, row := range rows {
		changes[i] = &sqlite.Change{Seq: first + int64(i), Op: sqlite.RowInsert, Table: table, Columns: columns, New: row}
	}
	return changes
}

// judge returns "change/user/image" for all that is seen, sorted.
func judge(t testing.TB, q *sqlite.Scratch, v *records.View, changes []*sqlite.Change, users ...any) []string {
	t.Helper()
	seen := []string{}
	err := q.Read(func() error {
		return v.Judge(q, changes, users, func(change, user int, old bool) {
			image := "new"
			if old {
				image = "old"
			}
			seen = append(seen, fmt.Sprintf("%d/%d/%s", change, user, image))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	return seen
}

const (
	strictTable = `CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, r REAL, s TEXT, n TEXT COLLATE NOCASE, p TEXT CONSTRAINT x CHECK (p <> 'no' COLLATE NOCASE) COLLATE RTRIM, b BLOB, a ANY, "odd name" ANY COLLATE "nocase", g TEXT AS (upper(s)), j TEXT CHECK (is_json(j))) STRICT`
	looseTable  = `CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, r DOUBLE, s VARCHAR(9), n CLOB COLLATE NOCASE, p CHARACTER COLLATE RTRIM, b BLOB, a, "odd name" ANY COLLATE NOCASE, g DATETIME, j BOOLEAN)`
)

// values are what columns and users are drawn from.
func randomValue(r *rand.Rand) driver.Value {
	texts := []string{"", "a", "A", "a ", "ab", "B", "1", "1.0", " 1", "x'00'", "ä", "Ä", "%", "a%", "null", "9223372036854775807", "1e3", `{"k":"a"}`}
	switch r.IntN(7) {
	case 0:
		return nil
	case 1:
		return int64(r.IntN(3))
	case 2:
		return []float64{0, 1, 1.5, -1, 1e300, math.MaxInt64}[r.IntN(6)]
	case 3:
		return []byte([]string{"", "a", "A", "1", "\x00", "\xff"}[r.IntN(6)])
	case 4:
		return []int64{math.MaxInt64, math.MinInt64, 1000}[r.IntN(3)]
	}
	return texts[r.IntN(len(texts))]
}

// fillAny inserts rows of random values, as far as the table takes them.
func fillAny(t testing.TB, db *sqlite.DB, r *rand.Rand, strict bool, rows int) {
	t.Helper()
	for id := range rows {
		for tries := 0; ; tries++ {
			args := []driver.Value{int64(id + 1), randomValue(r), randomValue(r), randomValue(r), randomValue(r), randomValue(r), randomValue(r), randomValue(r), randomValue(r)}
			if tries > 20 {
				args[1+r.IntN(6)] = nil
			}
			if tries > 60 {
				clear(args[1:7])
			}
			text := `INSERT INTO t (id, i, r, s, n, p, b, a, "odd name") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`
			if !strict {
				text = strings.Replace(text, `"odd name")`, `"odd name", g, j)`, 1)
				text = strings.Replace(text, "?9)", "?9, ?10, ?11)", 1)
				args = append(args, randomValue(r), randomValue(r))
			}
			if err := db.Write(bg, sqlite.Stmt{SQL: text, Args: args}); err == nil {
				break
			} else if tries == 100 {
				t.Fatal(err)
			}
		}
	}
}

// visibleIDs returns what a list shows user.
func visibleIDs(t testing.TB, svc *records.Service, api, query string, user any) map[int64]bool {
	t.Helper()
	r := httptest.NewRequest("GET", "/"+api+"?limit=1024&skip_cursor=true&"+query, nil)
	w := httptest.NewRecorder()
	svc.ServeHTTP(w, r.WithContext(as(records.Caller{ID: user})))
	var got struct{ Records []struct{ ID int64 } }
	if w.Code != 200 {
		t.Fatalf("list of %s?%s as %v: %d %s", api, query, user, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	ids := map[int64]bool{}
	for _, record := range got.Records {
		ids[record.ID] = true
	}
	return ids
}

var judgedRules = []string{
	``,
	`1`,
	`_USER_.id IS NOT NULL`,
	`_ROW_.s = _USER_.id`, `_USER_.id = _ROW_.s`,
	`_ROW_.n = _USER_.id`, `_USER_.id = _ROW_.n`, `_USER_.id < _ROW_.n`,
	`_ROW_.p = _USER_.id`, `_USER_.id = _ROW_.p`,
	`_ROW_.i = _USER_.id`, `_USER_.id >= _ROW_.i`,
	`_ROW_.r = _USER_.id`, `_ROW_.b = _USER_.id`, `_ROW_.a = _USER_.id`, `_USER_.id = _ROW_.a`,
	`_ROW_."odd name" = _USER_.id`, `_USER_.id IN (_ROW_."odd name", _ROW_.a)`,
	`_USER_.id IN (SELECT owner FROM team WHERE team.id = _ROW_.i)`,
	`_ROW_.n IN (SELECT owner FROM team WHERE team.id IS NOT _USER_.id)`,
	`EXISTS (SELECT 1 FROM team WHERE team.owner = _USER_.id AND team.id = _ROW_.i)`,
	`EXISTS (SELECT 1 FROM t AS other WHERE other.n = _ROW_.n AND other.id <> _ROW_.id AND other.s IS NOT _USER_.id)`,
	`(SELECT count(*) FROM team WHERE owner = _USER_.id) > _ROW_.i`,
	`(SELECT count(_USER_.id) FROM team) > _ROW_.i`,
	`(SELECT 1 FROM team ORDER BY owner LIMIT 1)`,
	`_ROW_.s = '1' OR _ROW_.a = 1`, `_ROW_.a = '1'`, `_ROW_.i = '1'`, `_ROW_.s = 1`, `_ROW_.r = '1.0'`, `_ROW_."odd name" = 'A'`, `_ROW_."odd name" = 1`,
	`_ROW_.n = 'a'`, `_ROW_.n LIKE _USER_.id`, `_ROW_.s LIKE 'A%'`, `_ROW_.s GLOB 'a*'`, `_ROW_.p IN ('a', 'B')`,
	`_ROW_.n < 'b' AND typeof(_ROW_.a) <> 'text'`, `_ROW_.n BETWEEN 'A' AND 'b'`, `CASE _ROW_.n WHEN 'a' THEN 1 END`,
	`typeof(_USER_.id) = typeof(_ROW_.a)`, `_ROW_.s || _USER_.id = 'aa'`, `_ROW_.a`, `_ROW_.i`, `i`, `n = 'a' AND s IS NOT NULL`,
	`_ROW_.rowid % 2`, `rowid = id AND oid > 3`, `_ROW_.g = _USER_.id`, `_ROW_.g > 'A'`, `_ROW_.j IS NULL`, `_ROW_.j`, `max(_ROW_.n, 'a') = 'A'`, `_ROW_.a <> _ROW_.n`, `_ROW_.s = _ROW_.n`, `_ROW_.n = _ROW_.s`,
	`_USER_.id + 0 = _ROW_.i`, `(_ROW_.i, _ROW_.n) = (1, _USER_.id)`, `(_USER_.id, 1) IN (SELECT owner, 1 FROM team)`, `_USER_.id = (SELECT owner FROM team WHERE id = _ROW_.i)`, `(SELECT owner FROM team WHERE id = _ROW_.i) = _USER_.id`,
	`coalesce(_USER_.id, 'a') = _ROW_.n`, `_ROW_.n = coalesce(_USER_.id, 'a')`, `_USER_.id COLLATE NOCASE = _ROW_.s`,
}

var judgedFilters = []string{
	"filter[i]=1", "filter[i][$ne]=1", "filter[i][$gte]=1&filter[i][$lt]=1001", "filter[r]=1", "filter[r][$gt]=1", "filter[s]=a", "filter[s]=1", "filter[n]=a", "filter[n][$ne]=A",
	"filter[n][$lte]=b", "filter[p]=a", "filter[b]=YQ%3D%3D", "filter[a]=1", "filter[a]=a", "filter[a][$gte]=a", "filter[s][$is]=NULL", "filter[a][$is]=!NULL", "filter[s][$like]=a%25", "filter[n][$like]=a%25",
	"filter[s][$re]=[aA]", "filter[a][$re]=1", "filter[$or][0][s]=a&filter[$or][1][i]=1", "filter[$and][0][$or][0][n]=a&filter[$and][0][$or][1][n]=b&filter[$and][1][a][$is]=NULL", "filter[g]=A", "filter[g][$gt]=1",
}

// What is seen of a change is what a list would show if the row were in the
// table: for all rules and filters, values, users, and however many of them.
func TestJudgeIsLikeList(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{true, false} {
		schema := looseTable
		if strict {
			schema = strictTable
		}
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("strict=%v/%d", strict, seed), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, 1))
				db := openDB(t, schema+`; CREATE TABLE team (id INTEGER, owner TEXT); INSERT INTO team VALUES (1, 'a'), (1, 'B'), (2, '1'), (0, NULL), (1000, 'A')`)
				fillAny(t, db, r, strict, 60)
				var apis []records.API
				for i, rule := range judgedRules {
					apis = append(apis, records.API{Name: fmt.Sprintf("t%d", i), Table: "t", World: records.Read, ReadRule: rule, Subscriptions: true})
				}
				svc := newService(t, db, apis...)
				columns, rows := rowsAs(t, db, "t")
				users := []any{nil, "", "a", "A", "a ", "B", "1", "1.0", int64(0), int64(1), int64(2), int64(math.MaxInt64), []byte("a"), []byte("1"), []byte{}, "Ä"}
				var changes []*sqlite.Change
				for i, row := range rows {
					c := &sqlite.Change{Seq: int64(i + 1), Op: sqlite.RowInsert, Table: "t", Columns: columns, New: row}
					switch r.IntN(3) {
					case 0:
						c.Op, c.Old, c.New = sqlite.RowDelete, row, nil
					case 1:
						c.Op, c.Old = sqlite.RowUpdate, rows[r.IntN(len(rows))]
					}
					changes = append(changes, c)
				}
				q := scratch(t, db)
				compare := func(api int, query string) {
					v := view(t, svc, apis[api].Name, query)
					var want []string
					for u, user := range users {
						if !v.PerUser() && u > 0 {
							break
						}
						ids := visibleIDs(t, svc, apis[api].Name, query, user)
						for i, c := range changes {
							if c.Old != nil && ids[c.Old[0].(int64)] {
								want = append(want, fmt.Sprintf("%d/%d/old", i, u))
							}
							if c.New != nil && ids[c.New[0].(int64)] {
								want = append(want, fmt.Sprintf("%d/%d/new", i, u))
							}
						}
					}
					slices.Sort(want)
					diff := func(how string, got []string) {
						t.Helper()
						if slices.Equal(got, want) {
							return
						}
						for i := range users {
							mine := func(s string) bool { return !strings.Contains(s, fmt.Sprintf("/%d/", i)) }
							g, w := slices.DeleteFunc(slices.Clone(got), mine), slices.DeleteFunc(slices.Clone(want), mine)
							if !slices.Equal(g, w) {
								t.Errorf("%s, rule %s, %s, user %#v:\n got %v\nwant %v", how, apis[api].ReadRule, query, users[i], g, w)
							}
						}
					}
					diff("all at once", judge(t, q, v, changes, users...))
					if !v.PerUser() {
						return
					}
					var few []string
					for i := 0; i < len(changes); i += 3 {
						for _, s := range judge(t, q, v, changes[i:min(i+3, len(changes))], users...) {
							n, rest, _ := strings.Cut(s, "/")
							at, err := strconv.Atoi(n)
							if err != nil {
								t.Fatal(err)
							}
							few = append(few, fmt.Sprintf("%d/%s", i+at, rest))
						}
					}
					slices.Sort(few)
					diff("few at a time", few)
					var single []string
					for u, user := range users {
						for _, s := range judge(t, q, v, changes, user) {
							single = append(single, strings.Replace(s, "/0/", fmt.Sprintf("/%d/", u), 1))
						}
					}
					slices.Sort(single)
					diff("one by one", single)
				}
				for i := range judgedRules {
					compare(i, "")
				}
				for _, filter := range judgedFilters {
					compare(0, filter)
					compare(3+r.IntN(len(judgedRules)-3), filter)
				}
			})
		}
	}
}

// What a log says is judged and shown as what was in the table at that time.
func TestViewOfLog(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{"strict": strictTable, "loose": looseTable} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, 7))
			db := openDB(t, schema)
			svc := newService(t, db,
				records.API{Name: "t", Table: "t", World: records.Read, Subscriptions: true},
				records.API{Name: "rule", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.n = _USER_.id OR _ROW_.a > 'a' OR _ROW_.i`})
			log, err := db.ChangeLog("main")
			if err != nil {
				t.Fatal(err)
			}
			start, err := log.Head(bg)
			if err != nil {
				t.Fatal(err)
			}
			fillAny(t, db, r, name == "strict", 80)
			was := map[int64]string{} // by id
			visible := visibleIDs(t, svc, "rule", "", "A")
			for id := range int64(80) {
				was[id+1] = get(svc, "", fmt.Sprint("/t/", id+1)).body
			}
			execSQL(t, db, `DELETE FROM t`)
			q := scratch(t, db)
			shown := 0
			err = q.Read(func() error {
				page, err := log.Page(q, start, math.MaxInt64, 1000)
				if err != nil || page.Gap || len(page.Changes) != 160 {
					return fmt.Errorf("gap %v, %d changes, %w", page.Gap, len(page.Changes), err)
				}
				v := view(t, svc, "t", "")
				for i, c := range page.Changes {
					wantRow(t, v, c, c.Op == sqlite.RowDelete, was[v.RowKey(c, i >= 80).(int64)])
				}
				return view(t, svc, "rule", "").Judge(q, page.Changes, []any{"A"}, func(change, _ int, old bool) {
					if id := v.RowKey(page.Changes[change], old).(int64); !visible[id] {
						t.Errorf("%s is seen", was[id])
					}
					shown++
				})
			})
			if err != nil || shown != 2*len(visible) || shown == 0 {
				t.Errorf("%d images are seen, %d rows were visible, %v", shown, len(visible), err)
			}
		})
	}
}

// An API that does not fit the schema any more shows nothing; one that fits
// again, or has other columns, is seen as it is now.
func TestViewFollowsSchema(t *testing.T) {
	t.Parallel()
	db := openDB(t, noteSchema)
	svc := newService(t, db, noteAPIs()...)
	all, own, filtered := view(t, svc, "note", ""), view(t, svc, "own", ""), view(t, svc, "note", "filter[body]=a")
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "note")
	changes := inserts("note", columns, 1, rows...)
	if got := judge(t, q, own, changes, "alice", "bob"); !slices.Equal(got, []string{"0/0/new", "1/1/new"}) {
		t.Error(got)
	}
	encoding := all.Encoding()
	execSQL(t, db, `ALTER TABLE note ADD COLUMN extra TEXT COLLATE NOCASE DEFAULT 'x'; ALTER TABLE note RENAME COLUMN body TO _body`)
	if all.Err() != nil || own.Err() != nil || !errors.Is(filtered.Err(), records.ErrGone) {
		t.Error(all.Err(), own.Err(), filtered.Err())
	}
	if all.Encoding() == encoding {
		t.Error("the encoding has not changed")
	}
	err := q.Read(func() error {
		return filtered.Judge(q, changes, nil, func(int, int, bool) { t.Error("seen") })
	})
	if !errors.Is(err, records.ErrGone) {
		t.Error(err)
	}
	older := changes
	columns, rows = rowsAs(t, db, "note")
	changes = inserts("note", columns, 3, rows...)
	for _, v := range []*records.View{all, own} { // what is not there would be NULL
		err := q.Read(func() error {
			return v.Judge(q, slices.Concat(older, changes), []any{"alice", "bob"}, func(int, int, bool) { t.Error("seen") })
		})
		if err == nil || errors.Is(err, records.ErrGone) {
			t.Error(err)
		}
	}
	if got := judge(t, q, own, changes, "alice", "bob"); !slices.Equal(got, []string{"0/0/new", "1/1/new"}) {
		t.Error(got)
	}
	wantRow(t, all, changes[0], false, `{"extra":"x","file":null,"id":1,"owner":"alice","parent":null}`)
	execSQL(t, db, `DROP TABLE note`)
	for _, v := range []*records.View{all, own} {
		if !errors.Is(v.Err(), records.ErrGone) {
			t.Error(v.Err())
		}
		if _, err := v.AppendRow(nil, changes[0], false); !errors.Is(err, records.ErrGone) {
			t.Error(err)
		}
		if v.RowKey(changes[0], false) != int64(1) {
			t.Error(v.RowKey(changes[0], false))
		}
		err := q.Read(func() error { return v.Judge(q, changes, []any{"alice"}, func(int, int, bool) { t.Error("seen") }) })
		if !errors.Is(err, records.ErrGone) {
			t.Error(err)
		}
	}
}

func wantRow(t testing.TB, v *records.View, c *sqlite.Change, old bool, want string) {
	t.Helper()
	got, err := v.AppendRow([]byte(">"), c, old)
	if err != nil || string(got) != ">"+want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

// The name of a column may stand in any quotes, strings included: its
// collation and its checks count all the same.
func TestJudgeColumnsInQuotes(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, 'status' TEXT COLLATE NOCASE, [it's] TEXT COLLATE NOCASE, 'f' TEXT CHECK (jsonschema('std.FileUpload', f))) STRICT;
		INSERT INTO t (id, status, "it's", f) VALUES (1, 'Open', 'Open', '{"id":"FILEID","filename":"n","content_type":"c","mime_type":"m"}'), (2, 'done', 'Open', NULL), (3, 'Open', 'done', NULL)`)
	svc := newService(t, db, records.API{Name: "t", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.status = 'OPEN' AND _ROW_."it's" = 'oPEN'`})
	records := list(t, svc, "", "/t").Records
	columns, rows := rowsAs(t, db, "t")
	changes := inserts("t", columns, 1, rows...)
	v := view(t, svc, "t", "")
	if got := judge(t, scratch(t, db), v, changes); len(records) != 1 || !slices.Equal(got, []string{"0/0/new"}) {
		t.Errorf("a list has %s, subscribers see %v", records, got)
	}
	wantRow(t, v, changes[0], false, string(records[0]))
	if strings.Contains(string(records[0]), "FILEID") {
		t.Error(string(records[0]))
	}
}
