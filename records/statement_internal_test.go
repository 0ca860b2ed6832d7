package records

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/sqlite"
)

// The text of a statement depends on names of the schema and on the form of
// the request, never on a value.
func TestStatementTextsHoldNoValues(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "test.db"), sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, `CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n INTEGER, a ANY, g BLOB CHECK (ST_IsValid(g))) STRICT`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := New(db, Config{Logger: slog.New(slog.DiscardHandler), APIs: []API{{Name: "t", Table: "t", World: Read | Create | Update, ReadRule: `_ROW_.s = _USER_.id`, CreateRule: `_REQ_.s = _USER_.id`, UpdateRule: `_REQ_.s = _ROW_.s`}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := svc.plan("t")
	if err != nil {
		t.Fatal(err)
	}
	text := func(value, number, user string) string {
		q, err := listquery.Parse("filter[s]=" + value + "&filter[s][$ne]=" + value + "&filter[s][$like]=" + value + "&filter[s][$re]=" + value + "&filter[a]=" + value + "&filter[n]=" + number + "&filter[$or][0][n][$gt]=" + number +
			"&filter[$or][1][g][@within]=POINT(" + number + "%201)&limit=" + number[:3] + "&offset=" + number + "&order=-s,n")
		if err != nil {
			t.Fatal(err)
		}
		l := &lister{s: svc, p: p, q: &q, user: caller{id: user}, limit: q.Limit}
		if err := l.order(); err != nil {
			t.Fatal(err)
		}
		pg, err := l.page(nil)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		all.WriteString(pg.b.String())
		for _, body := range []string{`{"s":"` + value + `","n":` + number + `}`, `{"a":"` + value + `","id":` + number + `}`} {
			rs, err := p.decodeJSON([]byte(body), caller{id: user}, false)
			if err != nil {
				t.Fatal(err)
			}
			sh := shape{given: rs[0].given, named: rs[0].given}
			all.WriteString(p.insertStatement(sh).sql)
			all.WriteString(p.updateStatement(sh).sql)
		}
		return all.String()
	}
	first, second := text("zqxvalue", "98765", "zqxuser"), text("other", "43210", "someone")
	if first != second {
		t.Errorf("two texts for two values:\n%s\n%s", first, second)
	}
	for _, value := range []string{"zqx", "98765"} {
		if strings.Contains(first, value) {
			t.Errorf("%s is in %s", value, first)
		}
	}
}
