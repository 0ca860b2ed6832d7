package records_test

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// Views that show different things have different keys, whatever a client
// writes into its filter, and views of two APIs always have.
func TestAttackViewKeys(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT) STRICT`)
	apis := []records.API{
		{Name: "t", Table: "t", World: records.Read, Subscriptions: true},
		{Name: "t_", Table: "t", World: records.Read, Subscriptions: true},
		{Name: "rule", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.a = 'x'`},
	}
	svc := newService(t, db, apis...)
	value := func(pairs ...string) string {
		q := url.Values{}
		for i := 0; i+1 < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
		}
		return q.Encode()
	}
	queries := []string{
		"", value("filter[a]", "x"), value("filter[a]", `x"`), value("filter[a]", `x" 0 "x`), value("filter[a]", `x","b" 0 "y`), value("filter[a]", `x",b 0 "y`),
		value("filter[a]", "x", "filter[b]", "y"), value("filter[b]", "x", "filter[a]", "y"),
		value("filter[$or][0][a]", "x", "filter[$or][1][b]", "y"), value("filter[$or][0][a]", "y", "filter[$or][1][b]", "x"),
		value("filter[a]", "x", "filter[b]", "y", "filter[id]", "1"), value("filter[a]", `x,"b" 0 y`, "filter[id]", "1"), value("filter[a]", `x","b" 0 "y`, "filter[id]", "1"),
		value("filter[a][$ne]", "x"), value("filter[a][$like]", "x"), value("filter[a][$re]", "x"),
		value("filter[a][$is]", "NULL"), value("filter[a][$is]", "!NULL"), value("filter[a]", "NULL"),
		value("filter[a]", "\u00a0"), value("filter[a]", `\u00a0`), value("filter[a]", "�"), value("filter[a]", `\xff`), value("filter[a]", "X"), value("filter[a]", "x "),
		value("filter[$or][0][a]", "x", "filter[$or][1][$and][0][a]", "y", "filter[$or][1][$and][1][b]", "z"),
		value("filter[$and][0][$or][0][a]", "x", "filter[$and][0][$or][1][a]", "y", "filter[b]", "z"),
	}
	seen := map[string]string{}
	for _, api := range apis {
		for _, query := range queries {
			name := api.Name + "?" + query
			sub, err := svc.Subscribe(bg, api.Name, "*", query)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if was, taken := seen[sub.View.Key()]; taken {
				t.Errorf("%s and %s have the key %s", was, name, sub.View.Key())
			}
			seen[sub.View.Key()] = name
		}
	}
	// Nor do two services share one: they may know different users by one id.
	if key := view(t, newService(t, db, apis...), "rule", "").Key(); seen[key] != "" {
		t.Errorf("views of two services have the key %s", key)
	}
	if a, b := view(t, svc, "rule", "filter[a]=x&filter[b]=y"), view(t, svc, "rule", "filter[b]=y&filter[a]=x"); a.Key() != b.Key() {
		t.Errorf("views of the same have the keys %s and %s", a.Key(), b.Key())
	}
}

// Filters cannot name what the API does not show, nor become large.
func TestAttackFilterBounds(t *testing.T) {
	t.Parallel()
	svc := newService(t, openDB(t, noteSchema), noteAPIs()...)
	terms := url.Values{}
	for i := range 33 {
		terms.Set(fmt.Sprintf("filter[$or][%d][body]", i), "x")
	}
	for _, query := range []string{
		"filter[_secret]=s", "filter[_secret][$is]=!NULL", "filter[price]=1", "filter[PRICE]=1", "filter[_SECRET]=s", "filter[file]=x", "filter[file][$like]=%25", "filter[file][$re]=.",
		"filter[rowid]=1", "filter[_rowid_]=1", "filter[oid]=1", "filter[_REQ_]=0", "filter[_ROW_.id]=1", "filter[_USER_]=1", "filter[id]=x", `filter[body")--]=1`, "filter[body][@within]=POINT(0 0)",
		terms.Encode(), "filter[body]=" + strings.Repeat("x", 8193), "filter[body][$like]=" + strings.Repeat("x", 257), "filter[body][$re]=(", "filter[body]=%00", "filter[body]=%ff",
		"filter" + strings.Repeat("[$or][0]", 20) + "[body]=x", strings.Repeat("&", 300),
	} {
		for _, api := range []string{"note", "own"} {
			_, err := svc.Subscribe(as(records.Caller{ID: "alice"}), api, "*", query)
			if status(err) != 400 {
				t.Errorf("%s?%.60s: %v", api, query, err)
			}
		}
	}
	// Nobody learns from it whether a record is there.
	for _, record := range []string{"1", "2", "77"} {
		var answers []string
		for _, query := range []string{"", "filter[_secret]=s", "filter[body]=x", "filter[price]=1"} {
			_, err := svc.Subscribe(as(records.Caller{ID: "eve"}), "own", record, query)
			answers = append(answers, fmt.Sprint(err))
		}
		for _, query := range []string{"", "filter[_secret]=s", "filter[body]=x", "filter[price]=1"} {
			_, err := svc.Subscribe(as(records.Caller{ID: "eve"}), "own", "99", query)
			answers = append(answers, fmt.Sprint(err))
		}
		if answers = slices.Compact(answers); len(answers) != 1 {
			t.Errorf("record %s: %q", record, answers)
		}
	}
}

func status(err error) int {
	if e, ok := err.(*records.Error); ok { //nolint:errorlint // as it is returned
		return e.Status
	}
	return 0
}

// Rows that a user may not read make no difference to it: neither do filters
// fail on them or take long, nor are others shown or not because of them.
func TestAttackFilterAsOracle(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner TEXT, body TEXT, g BLOB CHECK (ST_IsValid(g))) STRICT;
		CREATE TABLE member (user TEXT, owner TEXT); INSERT INTO member SELECT 'user' || value, 'alice' FROM json_each('[0,1,2,3,4,5,6,7,8,9,10,11]')`)
	var log bytes.Buffer
	apis := []records.API{
		{Name: "own", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.owner = _USER_.id`},
		{Name: "team", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `EXISTS (SELECT 1 FROM member WHERE user = _USER_.id AND owner = _ROW_.owner)`},
		{Name: "public", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.owner = 'alice'`},
	}
	svc, err := records.New(db, records.Config{APIs: apis, Caller: callerOf, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	q := scratch(t, db)
	// Too costly for the expressions below, and on its own in the row.
	costly := strings.Repeat("a", 1<<20)
	columns := []string{"id", "owner", "body", "g"}
	visible := []driver.Value{int64(1), "alice", "aab", nil}
	hidden := []driver.Value{int64(2), "eve", costly, []byte("no geometry")}
	users := []any{"alice", "user0"}
	for i := range 12 {
		users = append(users, fmt.Sprint("user", i+1))
	}
	for _, api := range apis {
		for _, query := range []string{
			"filter[body][$re]=" + url.QueryEscape("(aa|a.|ab){1,99}b"), "filter[body][$like]=" + strings.Repeat("%25"+strings.Repeat("a", 20), 11) + "b",
			"filter[g][@within]=" + url.QueryEscape("POLYGON((0 0,0 1,1 1,0 0))"), "filter[body][$ne]=" + costly[:8000],
		} {
			for _, n := range []int{1, len(users)} {
				v := view(t, svc, api.Name, query)
				with := judge(t, q, v, inserts("t", columns, 1, visible, hidden, visible), users[:n]...)
				without := judge(t, q, v, inserts("t", columns, 11, visible, []driver.Value{int64(2), "eve", "", nil}, visible), users[:n]...)
				if !slices.Equal(with, without) {
					t.Errorf("%s?%.40s: %v, without hidden rows %v", api.Name, query, with, without)
				}
				alone := inserts("t", columns, 21, hidden)
				plain := view(t, svc, api.Name, "filter[id]=7")
				hides := func(v *records.View) func() {
					return func() {
						if got := judge(t, q, v, alone, users[:n]...); len(got) != 0 {
							t.Errorf("%s?%.40s: %v", api.Name, query, got)
						}
					}
				}
				if tooSlow(10, hides(plain), hides(v)) {
					t.Errorf("%s?%.40s: a hidden row takes ten times as long as with a plain filter", api.Name, query)
				}
			}
		}
	}
	if log.Len() > 0 {
		t.Errorf("hidden rows leave in the log: %.500s", log.String())
	}
}

// A filter holds nobody up for long, whatever the rows are.
func TestAttackSlowFilter(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, more TEXT) STRICT`)
	svc := newService(t, db, records.API{Name: "t", Table: "t", World: records.Read, Subscriptions: true})
	q := scratch(t, db)
	columns := []string{"id", "body", "more"}
	body := strings.Repeat("a", 4<<20)
	terms := url.Values{}
	for i := range 32 {
		terms.Set(fmt.Sprintf("filter[$or][%d][body][$like]", i), "%"+strings.Repeat("a", 240)+fmt.Sprint("b", i))
	}
	seq := int64(100)
	judged := func(query, body string) func() {
		v := view(t, svc, "t", query)
		return func() {
			seq++
			judge(t, q, v, inserts("t", columns, seq, []driver.Value{int64(1), body, nil}))
		}
	}
	if tooSlow(10, judged("filter[body]=b", body), judged(terms.Encode(), body)) {
		t.Error("LIKE takes ten times as long as a comparison")
	}
	for _, expression := range []string{"[ab]*a[ab]{300}x", "(.a?){1,300}b", "(a|aa|b){1,90}x"} {
		if tooSlow(10, judged("filter[body]=b", body), judged("filter[body][$re]="+url.QueryEscape(expression), body[:16<<10])) {
			t.Errorf("%s takes ten times as long as a comparison", expression)
		}
	}
	// What is not out of the ordinary is found.
	short := body[:32<<10]
	v := view(t, svc, "t", "filter[body][$like]=%25"+strings.Repeat("a", 100)+"%25")
	if got := judge(t, q, v, inserts("t", columns, 11, []driver.Value{int64(1), short, nil}, []driver.Value{int64(2), nil, nil}, []driver.Value{int64(3), "b", nil})); !slices.Equal(got, []string{"0/0/new"}) {
		t.Error(got)
	}
	v = view(t, svc, "t", "filter[body][$re]="+url.QueryEscape("^a+$"))
	if got := judge(t, q, v, inserts("t", columns, 31, []driver.Value{int64(1), short, nil}, []driver.Value{int64(2), nil, nil}, []driver.Value{int64(3), "b", nil})); !slices.Equal(got, []string{"0/0/new", "1/0/new"}) {
		t.Error(got)
	}
}

// A change with other columns than the API knows, after a change of the schema
// by another process, is neither judged nor sent as if these were NULL.
func TestAttackChangeOfOtherColumns(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, private INTEGER, other TEXT) STRICT`)
	svc := newService(t, db,
		records.API{Name: "t", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.private IS NOT 1 OR private = 3 AND _USER_.id = 'x'`},
		records.API{Name: "all", Table: "t", World: records.Read, Subscriptions: true})
	q := scratch(t, db)
	renamed := inserts("t", []string{"id", "secret", "other"}, 1, []driver.Value{int64(1), int64(1), "x"})
	for _, v := range []*records.View{view(t, svc, "t", ""), view(t, svc, "t", "filter[other]=x"), view(t, svc, "all", "filter[private][$is]=NULL"), view(t, svc, "all", "filter[other]=x"), view(t, svc, "all", "")} {
		for _, users := range [][]any{{nil}, {nil, "a", "b", "c", "d", "e", "f", "g", "h", "i"}} {
			err := q.Read(func() error { return v.Judge(q, renamed, users, func(int, int, bool) { t.Error("seen") }) })
			if err == nil {
				t.Error("no error")
			}
		}
	}
}

// A view is of one table for ever: when the API is of another one, also if only
// its spelling is another, it is over.
func TestAttackTableRenamed(t *testing.T) {
	t.Parallel()
	db := openDB(t, noteSchema)
	svc := newService(t, db, noteAPIs()...)
	v := view(t, svc, "note", "")
	execSQL(t, db, `ALTER TABLE note RENAME TO x; ALTER TABLE x RENAME TO NOTE`)
	if database, table := v.Source(); database != "main" || table != "note" {
		t.Error("a view has moved:", database, table)
	}
	if v.Err() == nil {
		t.Error("a view of what the table was called is not over")
	}
	again := view(t, svc, "note", "")
	if _, table := again.Source(); table != "NOTE" || again.Err() != nil {
		t.Error(table, again.Err())
	}
	// Two APIs over attached databases with equal names have nothing in common.
	dir := t.TempDir()
	openFile(t, filepath.Join(dir, "b.db"), `CREATE TABLE note (id INTEGER PRIMARY KEY, owner TEXT) STRICT`, sqlite.Options{})
	both := openFile(t, filepath.Join(dir, "a.db"), `CREATE TABLE note (id INTEGER PRIMARY KEY, owner TEXT) STRICT`,
		sqlite.Options{Attach: []sqlite.Attachment{{Name: "other", Path: filepath.Join(dir, "b.db")}}})
	rule := `_ROW_.owner = _USER_.id`
	svc = newService(t, both, records.API{Name: "a", Table: "note", World: records.Read, ReadRule: rule, Subscriptions: true},
		records.API{Name: "b", Table: "other.note", World: records.Read, ReadRule: rule, Subscriptions: true})
	a, b := view(t, svc, "a", ""), view(t, svc, "b", "")
	q := scratch(t, both)
	columns := []string{"id", "owner"}
	for i := range int64(3) { // by turns in one scratch, with the same numbers
		if got := judge(t, q, a, inserts("note", columns, i, []driver.Value{i, "alice"}), "alice", "bob"); !slices.Equal(got, []string{"0/0/new"}) {
			t.Error(got)
		}
		if got := judge(t, q, b, inserts("note", columns, i, []driver.Value{i, "bob"}), "alice", "bob"); !slices.Equal(got, []string{"0/1/new"}) {
			t.Error(got)
		}
	}
	if da, _ := a.Source(); da == func() string { d, _ := b.Source(); return d }() || a.Key() == b.Key() {
		t.Error("the same source or key")
	}
}

// Users are told apart by type as rules do, also where a column's affinity
// would turn one into the other.
func TestAttackUserTypes(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, owner ANY, text TEXT, blob BLOB) STRICT`)
	users := []any{nil, int64(1), "1", []byte("1"), "", []byte{}, "1.0", "01", "１", "\x001", "1\x00", []byte("1\x00"), "NULL", "alice", "ALICE", "alice "}
	rule := func(column string) records.API {
		return records.API{Name: column, Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.` + column + ` = _USER_.id`}
	}
	svc := newService(t, db, rule("owner"), rule("text"), rule("blob"))
	q := scratch(t, db)
	for _, api := range []string{"owner", "text", "blob"} {
		v := view(t, svc, api, "")
		for place, owner := range users {
			row := []driver.Value{int64(1), nil, nil, nil}
			row[map[string]int{"owner": 1, "text": 2, "blob": 3}[api]] = owner
			if _, isText := owner.(string); api == "text" && !isText {
				continue
			}
			if _, isBlob := owner.([]byte); api == "blob" && !isBlob {
				continue
			}
			changes := inserts("t", []string{"id", "owner", "text", "blob"}, int64(place), row)
			together := judge(t, q, v, changes, users...)
			var apart []string
			for u, user := range users {
				if len(judge(t, q, v, changes, user)) > 0 {
					apart = append(apart, fmt.Sprintf("0/%d/new", u))
				}
			}
			slices.Sort(apart)
			if !slices.Equal(together, apart) {
				t.Errorf("%s of %T %q: together %v, apart %v", api, owner, owner, together, apart)
			}
			want := []string{fmt.Sprintf("0/%d/new", place)}
			if owner == nil {
				want = nil
			}
			if api == "owner" && !slices.Equal(apart, want) {
				t.Errorf("%T %q is seen by %v", owner, owner, apart)
			}
		}
	}
}

// Rows on which a rule fails cost those who may see others nothing, and do not
// fill the log.
func TestAttackFailingRows(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, j TEXT) STRICT`)
	var log bytes.Buffer
	svc, err := records.New(db, records.Config{
		APIs:   []records.API{{Name: "t", Table: "t", World: records.Read, Subscriptions: true, ReadRule: `_ROW_.j ->> '$.owner' = _USER_.id`}},
		Caller: callerOf, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	q := scratch(t, db)
	users := make([]any, 300)
	for i := range users {
		users[i] = fmt.Sprint("user", i)
	}
	var rows [][]driver.Value
	var want []string
	for i := range 32 {
		j := "{"
		if i%8 == 5 {
			j = fmt.Sprintf(`{"owner":"user%d"}`, i)
			want = append(want, fmt.Sprintf("%d/%d/new", i, i))
		}
		rows = append(rows, []driver.Value{int64(i), j})
	}
	slices.Sort(want)
	v := view(t, svc, "t", "")
	begin := time.Now()
	for i := range int64(3) {
		if got := judge(t, q, v, inserts("t", []string{"id", "j"}, 100*i, rows...), users...); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	t.Logf("%v for 32 rows that fail for 300 users", time.Since(begin)/3)
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// A rule that looks at other tables sees them as they are when the change is
// judged, for the row before and after alike: whoever has lost access in the
// same transaction is told nothing of it.
func TestAttackAccessLostInTheSameTransaction(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE doc (id INTEGER PRIMARY KEY, body TEXT) STRICT; CREATE TABLE share (doc INTEGER, user TEXT) STRICT;
		INSERT INTO doc VALUES (1, 'old'); INSERT INTO share VALUES (1, 'bob'), (1, 'ada')`)
	svc := newService(t, db, records.API{Name: "doc", Table: "doc", World: records.Read, Subscriptions: true,
		ReadRule: `EXISTS (SELECT 1 FROM share WHERE doc = _ROW_.id AND user = _USER_.id)`})
	log, err := db.ChangeLog("main")
	if err != nil {
		t.Fatal(err)
	}
	at, err := log.Head(bg)
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, db, `DELETE FROM share WHERE user = 'bob'; UPDATE doc SET body = 'secret'`)
	q := scratch(t, db)
	var got []string
	err = q.Read(func() error {
		page, err := log.Page(q, at, 1<<60, 10)
		if err != nil {
			return err
		}
		return view(t, svc, "doc", "").Judge(q, page.Changes, []any{"ada", "bob", nil}, func(change, user int, old bool) {
			got = append(got, fmt.Sprint(change, user, old))
		})
	})
	if slices.Sort(got); err != nil || !slices.Equal(got, []string{"0 0 false", "0 0 true"}) {
		t.Error(got, err)
	}
}
