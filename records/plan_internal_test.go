package records

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

const plannedSchema = `
CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, team INTEGER, parent INTEGER REFERENCES doc(id), state TEXT, n REAL) STRICT;
CREATE TABLE doc_text (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, team INTEGER, parent TEXT, state TEXT, n REAL);
CREATE TABLE doc_uuid (id BLOB PRIMARY KEY NOT NULL CHECK (is_uuid(id)), owner TEXT NOT NULL, team INTEGER, parent BLOB, state TEXT, n REAL) STRICT, WITHOUT ROWID;
CREATE TABLE member (team INTEGER NOT NULL, user TEXT NOT NULL, role TEXT, PRIMARY KEY (team, user)) STRICT;
CREATE TABLE grp (id INTEGER PRIMARY KEY, name TEXT, leader TEXT) STRICT;
CREATE INDEX member_user ON member(user);
CREATE INDEX doc_owner ON doc(owner);
CREATE INDEX doc_state ON doc(state, n);
CREATE INDEX doc_team ON doc(team);
CREATE INDEX doc_parent ON doc(parent);
CREATE INDEX text_owner ON doc_text(owner);
CREATE INDEX uuid_team ON doc_uuid(team);
`

// plannedRules are conditions in every shape.
var plannedRules = []string{
	`_ROW_.owner = _USER_.id`,
	`_ROW_.owner = _USER_.id OR _ROW_.state = 'open'`,
	`_ROW_.owner = _USER_.id AND _ROW_.state IN ('open', 'new')`,
	`_ROW_.team IN (SELECT team FROM member WHERE user = _USER_.id)`,
	`_USER_.id IN (SELECT user FROM member WHERE team = _ROW_.team)`,
	`EXISTS (SELECT 1 FROM member WHERE team = _ROW_.team AND user = _USER_.id)`,
	`NOT EXISTS (SELECT 1 FROM member m WHERE m.team = _ROW_.team AND m.user = _USER_.id)`,
	`EXISTS (SELECT 1 FROM member m JOIN grp g ON g.id = m.team WHERE m.user = _USER_.id AND g.id = _ROW_.team)`,
	`EXISTS (SELECT 1 FROM member m, grp g WHERE g.id = m.team AND (m.user = _USER_.id OR g.leader = _USER_.id) AND g.id = _ROW_.team)`,
	`(SELECT role FROM member WHERE team = _ROW_.team AND user = _USER_.id) = 'admin'`,
	`(SELECT 1 FROM member WHERE team = _ROW_.team AND user = _USER_.id)`,
	`(SELECT count(*) FROM member WHERE team = _ROW_.team) < 3`,
	`CASE WHEN _ROW_.state = 'open' THEN 1 ELSE _ROW_.owner = _USER_.id END`,
	`CASE _ROW_.state WHEN 'open' THEN 1 WHEN 'new' THEN _ROW_.owner = _USER_.id END`,
	`coalesce(_ROW_.owner, '') = _USER_.id`,
	`lower(_ROW_.owner) = lower(_USER_.id)`,
	`_ROW_.state LIKE 'o%'`,
	`_ROW_.state BETWEEN 'a' AND 'p' AND _ROW_.n > 0.5`,
	`_ROW_.n > 1 OR _ROW_.team = 3 OR _ROW_.owner = _USER_.id`,
	`_ROW_.team = 1 AND _ROW_.owner = _USER_.id AND EXISTS (SELECT 1 FROM grp WHERE id = _ROW_.team)`,
	`(_ROW_.team, _USER_.id) IN (SELECT team, user FROM member)`,
	`_ROW_.team IN (SELECT team FROM member WHERE user = _USER_.id UNION SELECT id FROM grp WHERE leader = _USER_.id)`,
	`_ROW_.owner IS NOT DISTINCT FROM _USER_.id`,
	`_ROW_.id > 0 AND _ROW_.id < 100000`,
	`_ROW_.id IN (1, 2, 3) OR _ROW_.id = 4`,
	`_ROW_.state = 'open' AND _ROW_.n = 2`,
	`1`, `0`, `NULL`, `1 = 1`,
	`(SELECT leader FROM grp WHERE grp.id = _ROW_.team) = _USER_.id AND (_ROW_.owner <> _USER_.id OR NOT _ROW_.state = 'x')`,
}

var plannedRequestRules = []string{
	`_REQ_.owner = _USER_.id`,
	`_REQ_.team = _ROW_.team AND 'owner' NOT IN _REQ_FIELDS_`,
	`_ROW_.owner = _USER_.id AND _REQ_.team IN (SELECT team FROM member WHERE user = _USER_.id)`,
	`_REQ_.state IS NULL OR _ROW_.state = _REQ_.state`,
	`(SELECT count(*) FROM _REQ_FIELDS_) < 3 AND _ROW_.owner = coalesce(_REQ_.owner, _USER_.id)`,
}

// No statement that is about one row scans a table of rows, whatever the rule
// and however outdated the statistics.
func TestByIDStatementsDoNotScan(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "test.db"), sqlite.Options{Synchronous: sqlite.Normal, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	run := func(script string) {
		t.Helper()
		err := db.Update(ctx, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(ctx, script)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	run(plannedSchema)
	const one = `
INSERT INTO doc VALUES (1, 'a', 1, NULL, 'open', 1.5);
INSERT INTO doc_text VALUES ('1', 'a', 1, NULL, 'open', 1.5);
INSERT INTO doc_uuid VALUES (uuid_v7(), 'a', 1, NULL, 'open', 1.5);
INSERT INTO member VALUES (1, 'a', 'admin');
INSERT INTO grp VALUES (1, 'g', 'a');
ANALYZE;`
	const many = `
WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO doc SELECT i, 'u' || i % 7, i % 50, i - 1, 'open', i FROM n;
INSERT INTO doc_text SELECT 't' || id, owner, team, parent, state, n FROM doc WHERE id > 1;
INSERT INTO doc_uuid SELECT uuid_v7(), owner, team, NULL, state, n FROM doc WHERE id > 1;
INSERT OR IGNORE INTO member SELECT team, owner, 'x' FROM doc;
INSERT OR IGNORE INTO grp SELECT id, 'g', owner FROM doc WHERE id < 100;`
	for _, step := range []struct{ name, script string }{
		{"empty", ``}, {"one row", one}, {"many rows, statistics of one", many}, {"analyzed", `ANALYZE`}, {"few rows, statistics of many", `DELETE FROM doc WHERE id > 2; DELETE FROM doc_text WHERE id <> '1'; DELETE FROM member WHERE team > 1`},
	} {
		if step.script != "" {
			run(step.script)
		}
		assertNoScan(t, db, step.name)
	}
}

func assertNoScan(t *testing.T, db *sqlite.DB, step string) {
	t.Helper()
	sandbox, err := db.Sandbox(context.Background(), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sandbox.Close() }()
	checked := 0
	check := func(p *plan, api API, st *statement) {
		t.Helper()
		// Nothing is bound: a plan that depends on values would not be kept.
		steps, err := sandbox.Plan(st.sql, make([]driver.Value, len(st.args)))
		if err != nil {
			t.Errorf("%s: %v", st.sql, err)
			return
		}
		found := false
		for _, s := range steps {
			if strings.HasPrefix(s, "SCAN _ROW_") || strings.HasPrefix(s, "SCAN "+p.table.name) {
				t.Errorf("%s: rule %s\n%s\n%s", step, api.ReadRule, st.sql, strings.Join(steps, "\n"))
			}
			if strings.HasPrefix(s, "SEARCH _ROW_ USING") {
				found = true
				if !strings.Contains(s, "(rowid=?)") && !strings.Contains(s, "(id=?)") {
					t.Errorf("%s: rule %s: another way than the key is taken to the row\n%s\n%s", step, api.ReadRule, st.sql, strings.Join(steps, "\n"))
				}
			}
		}
		if !found {
			t.Errorf("%s: %s\nhas no search for the row:\n%s", step, st.sql, strings.Join(steps, "\n"))
		}
		checked++
	}
	for _, tableName := range []string{"doc", "doc_text", "doc_uuid"} {
		var apis []API
		add := func(api API) {
			api.Name, api.Table, api.World = "a"+string(rune('a'+len(apis)/26))+string(rune('a'+len(apis)%26)), tableName, Create|Read|Update|Delete
			apis = append(apis, api)
		}
		for _, r := range plannedRules {
			add(API{ReadRule: r, UpdateRule: r, DeleteRule: r, Check: r})
		}
		for _, r := range plannedRequestRules {
			add(API{UpdateRule: r})
		}
		svc, err := New(db, Config{APIs: apis, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for _, api := range apis {
			p, err := svc.plan(api.Name)
			if err != nil {
				t.Fatal(err)
			}
			check(p, api, p.readOne)
			check(p, api, p.cached(shape{kind: removeShape}))
			check(p, api, p.checkOne)
			for _, names := range [][]string{nil, {"owner"}, {"owner", "team", "state", "n", "parent"}} {
				sh := shape{kind: updateShape}
				for _, name := range names {
					sh.given.add(p.table.column(name).index)
				}
				sh.named = sh.given
				check(p, api, p.updateStatement(sh))
			}
		}
	}
	if want := 3 * (len(plannedRules) + len(plannedRequestRules)) * 6; checked != want {
		t.Errorf("%d statements checked, want %d", checked, want)
	}
}
