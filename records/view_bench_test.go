package records_test

import (
	"database/sql/driver"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const benchSchema = `
	CREATE TABLE post (id INTEGER PRIMARY KEY, author TEXT, team INTEGER, title TEXT, body TEXT, score REAL, done INTEGER, data BLOB) STRICT;
	CREATE TABLE member (team INTEGER, user TEXT, PRIMARY KEY (team, user)) STRICT, WITHOUT ROWID;
	WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999) INSERT INTO member SELECT i % 50, 'user' || (i / 10) FROM n;
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO post SELECT i, 'user' || i, i % 50, 'a title', printf('%.200c', 'x'), i / 3.0, 1, x'00010203' FROM n`

func benchAPIs() []records.API {
	api := records.API{Name: "all", Table: "post", World: records.Read, Subscriptions: true}
	author, member, world, plain := api, api, api, api
	author.Name, author.ReadRule = "author", `_ROW_.author = _USER_.id`
	member.Name, member.ReadRule = "member", `EXISTS (SELECT 1 FROM member WHERE team = _ROW_.team AND user = _USER_.id)`
	world.Name, world.ReadRule = "world", `_ROW_.done = 1 OR _ROW_.author = _USER_.id`
	plain.Name, plain.Subscriptions = "plain", false
	return []records.API{api, author, member, world, plain}
}

// BenchmarkJudge compares judging for 2,000 users at once with one statement
// for each of them: a change at a time, and 50.
func BenchmarkJudge(b *testing.B) {
	db := openDB(b, benchSchema)
	svc := newService(b, db, benchAPIs()...)
	q := scratch(b, db)
	columns, rows := rowsAs(b, db, "post")
	users := make([]any, 2000)
	for i := range users {
		users[i] = fmt.Sprint("user", i)
	}
	for _, api := range []string{"author", "member", "world", "all"} {
		v := view(b, svc, api, "")
		for _, n := range []int{1, 50} {
			run := func(name string, judge func(changes []*sqlite.Change) error) {
				b.Run(fmt.Sprintf("%s/%d/%s", api, n, name), func(b *testing.B) {
					b.ReportAllocs()
					seq := int64(1)
					done := 0
					for b.Loop() {
						seq += int64(n)
						changes := inserts("post", columns, seq, rows[:n]...)
						if err := q.Read(func() error { return judge(changes) }); err != nil {
							b.Fatal(err)
						}
						done += n
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done)/1e3, "µs/change")
				})
			}
			see := func(int, int, bool) {}
			run("together", func(changes []*sqlite.Change) error { return v.Judge(q, changes, users, see) })
			if v.PerUser() {
				run("apart", func(changes []*sqlite.Change) error {
					for i := range users {
						if err := v.Judge(q, changes, users[i:i+1], see); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
	}
}

func BenchmarkAppendRow(b *testing.B) {
	db := openDB(b, benchSchema)
	svc := newService(b, db, benchAPIs()...)
	columns, rows := rowsAs(b, db, "post")
	c := inserts("post", columns, 1, rows[0])[0]
	v := view(b, svc, "all", "")
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = v.AppendRow(buf[:0], c, false); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChangeCursor reads by turns without and with subscriptions, and
// reports what half of the requests take at most.
func BenchmarkChangeCursor(b *testing.B) {
	db := openDB(b, benchSchema)
	svc := newService(b, db, benchAPIs()...)
	if err := db.Write(bg, sqlite.Stmt{SQL: `UPDATE post SET score = ?1`, Args: []driver.Value{1.5}}); err != nil {
		b.Fatal(err)
	}
	for _, target := range []string{"/%s/77", "/%s?limit=50"} {
		b.Run(target, func(b *testing.B) {
			names := []string{"plain", "all"}
			var requests []*http.Request
			took := make([][]time.Duration, len(names))
			for _, name := range names {
				requests = append(requests, httptest.NewRequest(http.MethodGet, fmt.Sprintf(target, name), nil))
			}
			for b.Loop() {
				for i, r := range requests {
					w := httptest.NewRecorder()
					begin := time.Now()
					svc.ServeHTTP(w, r)
					took[i] = append(took[i], time.Since(begin))
					if w.Code != 200 {
						b.Fatal(w.Code)
					}
				}
			}
			for i, name := range names {
				slices.Sort(took[i])
				b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds()), name+"-ns")
			}
		})
	}
}
