package records_test

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// Whoever comes, goes or changes places among the users, and whatever batches
// come, each is judged for who is asked about.
func TestJudgeChangingUsers(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner ANY, body TEXT) STRICT`)
	svc := newService(t, db, records.API{Name: "t", Table: "t", World: records.Read, ReadRule: `_ROW_.owner IS _USER_.id`, Subscriptions: true})
	all, filtered := view(t, svc, "t", ""), view(t, svc, "t", "filter[body]=b")
	q := scratch(t, db)
	r := rand.New(rand.NewPCG(1, 2))
	pool := []any{nil}
	for i := range 33 {
		pool = append(pool, fmt.Sprint(i), int64(i), []byte(fmt.Sprint(i)))
	}
	row := func(i int) []driver.Value {
		return []driver.Value{int64(i), pool[r.IntN(len(pool))], []string{"a", "b"}[r.IntN(2)]}
	}
	seq := int64(1)
	var batch []*sqlite.Change
	for round := range 600 {
		if round%3 == 0 {
			batch = nil
			for i := range 1 + r.IntN(5) {
				batch = append(batch, &sqlite.Change{Seq: seq, Op: sqlite.RowUpdate, Columns: []string{"id", "owner", "body"}, Old: row(i), New: row(i)})
				seq++
			}
		}
		changes := batch
		if round%4 == 1 {
			changes = batch[len(batch)-1:]
		}
		from := pool
		if round > 200 && round < 400 { // the others have gone for long
			from = slices.Clone(pool[:20])
		}
		r.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
		users := slices.Clone(from[:1+r.IntN(len(from))])
		switch {
		case round%10 == 9:
			users = slices.Clone(from[:1])
		case round%50 == 7:
			users = append(users, users[0])
		}
		for _, v := range []*records.View{all, filtered, all} {
			want := []string{}
			for i, c := range changes {
				for u, user := range users {
					for image, row := range map[string][]driver.Value{"old": c.Old, "new": c.New} {
						if reflect.DeepEqual(row[1], user) && (v != filtered || row[2] == "b") {
							want = append(want, fmt.Sprintf("%d/%d/%s", i, u, image))
						}
					}
				}
			}
			slices.Sort(want)
			if got := judge(t, q, v, changes, users...); !slices.Equal(got, want) {
				t.Fatalf("round %d: got %v, want %v", round, got, want)
			}
		}
	}
}

// The users kept are bounded, whoever is pushed out comes back.
func TestJudgeManyUsers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("judges for hundreds of thousands of users")
	}
	db := openDB(t, noteSchema)
	svc := newService(t, db, noteAPIs()...)
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "note")
	changes := inserts("note", columns, 1, rows[0])
	users := make([]any, 100_000)
	for i := range users {
		users[i] = int64(i)
	}
	users[77_777] = "alice"
	for _, filter := range []string{"", "filter[body]=a", "filter[owner]=alice", ""} {
		if got := judge(t, q, view(t, svc, "own", filter), changes, users...); !slices.Equal(got, []string{"0/77777/new"}) {
			t.Errorf("%s: %v", filter, got)
		}
	}
}

// Columns may have names that mean something in rules.
func TestJudgeOddNames(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id TEXT PRIMARY KEY, "_req_" TEXT, "_REQ__" TEXT, "_user_" TEXT, "_row_" TEXT, rowid TEXT, "a""b" TEXT) STRICT`)
	svc := newService(t, db, records.API{Name: "t", Table: "t", World: records.Read, Subscriptions: true,
		ReadRule: `_ROW_."_user_" = _USER_.id AND _ROW_."_req_" = 'x' AND rowid = 'y' AND _ROW_."a""b" = 'z' AND _ROW_."_row_" || "_REQ__" = 'ab'`})
	row := []driver.Value{"k", "x", "b", "u3", "a", "y", "z"}
	var users []any
	for i := range 10 {
		users = append(users, fmt.Sprint("u", i))
	}
	columns, _ := rowsAs(t, db, "t")
	for _, n := range []int{4, 10} {
		if got := judge(t, scratch(t, db), view(t, svc, "t", ""), inserts("t", columns, 1, row), users[:n]...); !slices.Equal(got, []string{"0/3/new"}) {
			t.Error(got)
		}
	}
}

// Another process may take away what a rule needs: then nobody sees anything.
func TestJudgeAfterSchemaChangeElsewhere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openFile(t, path, noteSchema+`CREATE TABLE friend (a TEXT, b TEXT); INSERT INTO friend VALUES ('alice', 'bob')`, sqlite.Options{})
	api := noteAPIs()[0]
	api.Name, api.ReadRule = "friends", `EXISTS (SELECT 1 FROM friend WHERE a = _USER_.id AND b = _ROW_.owner)`
	svc := newService(t, db, append(noteAPIs(), api)...)
	v, own := view(t, svc, "friends", ""), view(t, svc, "own", "")
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "note")
	changes := inserts("note", columns, 1, rows...)
	users := []any{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "alice"}
	if got := judge(t, q, v, changes, users...); !slices.Equal(got, []string{"1/10/new"}) {
		t.Error(got)
	}
	execSQL(t, openFile(t, path, "", sqlite.Options{}), `DROP TABLE friend`)
	for _, some := range [][]any{users, users[8:]} {
		err := q.Read(func() error { return v.Judge(q, changes, some, func(int, int, bool) { t.Error("seen") }) })
		if err == nil { // otherwise it would go unnoticed that something is not told
			t.Error("a rule without its table can be judged")
		}
		if got := judge(t, q, own, changes, some...); len(got) != 1 {
			t.Errorf("own: %v", got)
		}
	}
}

// A rule that fails on a row denies this row to whom it fails for, and nothing
// else.
func TestJudgeFailingRule(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, j TEXT) STRICT`)
	svc := newService(t, db,
		records.API{Name: "json", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.j ->> '$.a' = 'x' AND (_USER_.id >= 0 OR 1)`},
		records.API{Name: "user", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `CASE WHEN _ROW_.j = '{}' THEN 1 ELSE _USER_.id ->> '$.a' END`},
		records.API{Name: "world", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.j ->> '$.a' = 'x'`})
	q := scratch(t, db)
	columns := []string{"id", "j"}
	good, bad, empty := []driver.Value{int64(1), `{"a":"x"}`}, []driver.Value{int64(2), `{"a"`}, []driver.Value{int64(3), `{}`}
	changes := inserts("t", columns, 1, good, bad, good, empty, bad, bad, good)
	changes = append(changes, &sqlite.Change{Seq: 8, Op: sqlite.RowUpdate, Columns: columns, Old: bad, New: good}, &sqlite.Change{Seq: 9, Op: sqlite.RowUpdate, Columns: columns, Old: good, New: bad})
	var users []any
	for i := range 12 {
		users = append(users, int64(i))
	}
	if got := judge(t, q, view(t, svc, "world", ""), changes); !slices.Equal(got, []string{"0/0/new", "2/0/new", "6/0/new", "7/0/new", "8/0/old"}) {
		t.Errorf("%v", got)
	}
	for _, n := range []int{1, 3, 12} {
		var want []string
		for _, image := range []string{"0/%d/new", "2/%d/new", "6/%d/new", "7/%d/new", "8/%d/old"} {
			for u := range n {
				want = append(want, fmt.Sprintf(image, u))
			}
		}
		slices.Sort(want)
		if got := judge(t, q, view(t, svc, "json", ""), changes, users[:n]...); !slices.Equal(got, want) {
			t.Errorf("%d users: got %v, want %v", n, got, want)
		}
	}
	users = []any{"{", `{"a":1}`, `{"a":0}`, nil, "}", "[]", "[1]", "[2]", "[3]", `{"a":2}`}
	got := judge(t, q, view(t, svc, "user", ""), inserts("t", columns, 20, good, empty), users...)
	want := []string{"0/1/new", "0/9/new"}
	for u := range users {
		want = append(want, fmt.Sprintf("1/%d/new", u))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A rule that takes too long is an error, after one wait, as it is not known
// who may see what. It leaves nothing behind.
func TestJudgeSlowRule(t *testing.T) {
	t.Parallel()
	const limit = 500 * time.Millisecond
	db := openFile(t, t.TempDir()+"/test.db", noteSchema+`CREATE TABLE n (i INTEGER); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) INSERT INTO n SELECT i FROM c`,
		sqlite.Options{MaxStatement: limit})
	slow := noteAPIs()[0]
	slow.Name, slow.ReadRule = "slow", `CASE WHEN _ROW_.id = 1 THEN (SELECT count(*) FROM n, n AS m, n AS o, n AS p WHERE n.i + m.i + o.i + p.i > 0) > 0 ELSE _USER_.id IS NOT NULL END`
	svc := newService(t, db, append(noteAPIs(), slow)...)
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "note")
	many := make([]any, 60)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for i, users := range [][]any{{"alice", "bob", "eve"}, many} {
		v := view(t, svc, "slow", "")
		begin := time.Now()
		err := q.Read(func() error {
			return v.Judge(q, inserts("note", columns, int64(10*i), rows...), users, func(int, int, bool) {})
		})
		if !errors.Is(err, sqlite.ErrTimeout) {
			t.Error(err)
		}
		if took := time.Since(begin); took > limit*time.Duration(len(many))/2 {
			t.Errorf("for %d users it took %v", len(users), took)
		}
		if got := judge(t, q, v, inserts("note", columns, int64(10*i+5), rows[1]), users...); len(got) != len(users) {
			t.Errorf("after that: %v", got)
		}
	}
}

// What cannot be told is an error, and leaves nothing behind.
func TestJudgeRecovers(t *testing.T) {
	t.Parallel()
	db := openDB(t, noteSchema)
	svc := newService(t, db, noteAPIs()...)
	v := view(t, svc, "own", "")
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "note")
	users := []any{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "bob"}
	bad := slices.Clone(rows[1])
	bad[2] = struct{}{}
	for seq := range int64(3) {
		changes := inserts("note", columns, 10*seq, rows...)
		for _, wrong := range []func() error{
			func() error {
				return v.Judge(q, inserts("note", columns, 10*seq+5, rows[0], bad), users, func(int, int, bool) { t.Error("seen") })
			},
			func() error {
				return v.Judge(q, changes, append(slices.Clone(users), 1.5i), func(int, int, bool) { t.Error("seen") })
			},
		} {
			if err := q.Read(wrong); err == nil || errors.Is(err, records.ErrGone) {
				t.Error(err)
			}
			if got := judge(t, q, v, changes, users...); !slices.Equal(got, []string{"1/10/new"}) {
				t.Error(got)
			}
		}
	}
}

// A row that the rule fails on is not asked about for one user after the
// other without end.
func TestJudgeFailsForMany(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, j TEXT) STRICT`)
	svc := newService(t, db, records.API{Name: "t", Table: "t", World: records.Read, Subscriptions: true,
		ReadRule: `CASE WHEN _USER_.id IN (5, 60, 9000) THEN 1 ELSE _ROW_.j ->> '$.a' = 'x' END`})
	q := scratch(t, db)
	columns := []string{"id", "j"}
	good, bad := []driver.Value{int64(1), `{"a":"x"}`}, []driver.Value{int64(2), `{"a"`}
	users := make([]any, 10_000)
	for i := range users {
		users[i] = int64(i)
	}
	// The user 9000 may see them, but is behind too many for whom they fail.
	want := []string{"0/5/new", "0/60/new", "2/5/new", "2/60/new"}
	for i := range users {
		want = append(want, fmt.Sprintf("1/%d/new", i))
	}
	slices.Sort(want)
	v, changes := view(t, svc, "t", ""), inserts("t", columns, 1, bad, good, bad)
	if got := judge(t, q, v, changes, users...); !slices.Equal(got, want) {
		t.Errorf("%d are seen, want %d", len(got), len(want))
	}
	// Who is there twice has all judged one by one.
	users, want = append(users, int64(5)), append(want, "1/10000/new")
	slices.Sort(want)
	if got := judge(t, q, v, changes, users...); !slices.Equal(got, want) {
		t.Errorf("one by one: %d are seen, want %d", len(got), len(want))
	}
}

// Whatever sets of users are pushed out by those of other views come back.
func TestJudgeManyViews(t *testing.T) {
	t.Parallel()
	svc := newService(t, openDB(t, noteSchema), noteAPIs()...)
	db := openDB(t, noteSchema)
	q := scratch(t, db)
	columns, rows := rowsAs(t, db, "note")
	changes := inserts("note", columns, 1, rows...)
	var users []any
	for i := range 10 {
		users = append(users, fmt.Sprint("user", i))
	}
	users = append(users, "alice")
	views := make([]*records.View, 1030)
	for i := range views {
		views[i] = view(t, svc, "own", fmt.Sprint("filter[body][$ne]=", i))
	}
	for range 2 {
		for i, v := range views {
			if got := judge(t, q, v, changes, users...); !slices.Equal(got, []string{"0/10/new"}) {
				t.Fatal(i, got)
			}
		}
	}
	var n string
	err := q.Read(func() error {
		return q.Query(`SELECT count(*) FROM temp."_USER_"`, nil, func(row []driver.Value) error {
			n = fmt.Sprint(row[0])
			return nil
		})
	})
	if want := fmt.Sprint(1024 * len(users)); err != nil || n != want {
		t.Errorf("%s users are kept, want %s: %v", n, want, err)
	}
}
