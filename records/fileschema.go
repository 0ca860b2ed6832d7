package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// registrySQL makes the registry of a database file: which files are stored,
// how many bytes they have, who has uploaded them, and how many values refer
// to them. Sums are kept beside it, so that a quota costs the same however many
// files there are.
const registrySQL = `CREATE TABLE IF NOT EXISTS $."_file" (
		id    TEXT PRIMARY KEY NOT NULL,
		size  INTEGER NOT NULL, -- 0: not known
		owner ANY,
		refs  INTEGER NOT NULL DEFAULT 0
	) STRICT, WITHOUT ROWID;
	CREATE INDEX IF NOT EXISTS $."_file_unused" ON "_file" (id) WHERE refs = 0;
	CREATE TABLE IF NOT EXISTS $."_file_usage" (
		owner TEXT PRIMARY KEY NOT NULL, -- quote(owner), empty for the sum of all
		bytes INTEGER NOT NULL
	) STRICT, WITHOUT ROWID`

// usageTriggers are those of the registry itself, which keep the sums.
func usageTriggers() map[string]string {
	const (
		added = `INSERT INTO "_file_usage" (owner, bytes) VALUES (quote(NEW.owner), NEW.size), ('', NEW.size)` +
			` ON CONFLICT (owner) DO UPDATE SET bytes = bytes + excluded.bytes; `
		removed = `UPDATE "_file_usage" SET bytes = bytes - OLD.size WHERE owner IN (quote(OLD.owner), ''); ` +
			`DELETE FROM "_file_usage" WHERE owner = quote(OLD.owner) AND bytes <= 0; `
	)
	return namedTriggers("", map[string]string{
		"insert": `INSERT ON "_file" WHEN NEW.size <> 0 BEGIN ` + added,
		"update": `UPDATE OF size, owner ON "_file" BEGIN ` + added + removed,
		"delete": `DELETE ON "_file" WHEN OLD.size <> 0 BEGIN ` + removed,
	})
}

// namedTriggers returns triggers as they are in sqlite_schema, by name.
func namedTriggers(table string, bodies map[string]string) map[string]string {
	all := map[string]string{}
	for op, body := range bodies {
		name := "_file_" + table + "_" + op
		all[name] = createTrigger + quote(name) + " AFTER " + body + "END"
	}
	return all
}

// createTrigger begins the text of every trigger in sqlite_schema.
const createTrigger = "CREATE TRIGGER "

// querier runs one statement in a snapshot or a transaction.
type querier func(query string, args []driver.Value, row func([]driver.Value) error) error

// A registry is what one database file has for counting files, and what it
// must have.
type registry struct {
	database   string
	schema     int64 // version
	exists     bool
	tables     []fileTable
	have, want map[string]string // triggers, by name
}

// A fileTable is a table with file columns. They need not belong to an API:
// the application may copy values from one table to another.
type fileTable struct {
	name    string
	columns []string
}

// installTimeout is for making and counting a registry, of one database.
const installTimeout = time.Minute

// install makes registries and triggers as they must be, in all database files
// that have file columns. It returns quickly if they are. What is not counted
// yet it counts, which may take longer than any request, and is not ended with
// ctx. Where it fails, nothing can be uploaded until it succeeds.
func (f *files) install(ctx context.Context, _ map[string]*plan) error {
	f.installing.Lock()
	defer f.installing.Unlock()
	begin := time.Now()
	if begin.Before(f.again) {
		return f.failed
	}
	f.failed = f.makeRegistries(context.WithoutCancel(ctx))
	if took := time.Since(begin); f.failed != nil && took > time.Second {
		f.again = time.Now().Add(10 * took) // nobody can write meanwhile
	}
	return f.failed
}

func (f *files) makeRegistries(ctx context.Context) error {
	var all []registry
	short, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	err := f.db.Read(short, func(r *sqlite.Reader) (err error) {
		all, err = registries(r.Query)
		return err
	})
	if err != nil {
		return fmt.Errorf("records: count files: %w", err)
	}
	var errs []error
	made := map[string]installation{}
	for _, reg := range all {
		var err error
		if reg.stale() {
			if err = f.makeRegistry(ctx, &reg); err != nil {
				errs = append(errs, fmt.Errorf("records: count files: database %s: %w", reg.database, err))
			}
		}
		if len(reg.tables) > 0 || reg.exists {
			made[reg.database] = installation{reg.schema, err == nil}
		}
	}
	f.registries.Store(&made)
	return errors.Join(errs...)
}

// makeRegistry makes one registry, and looks at the database again for that.
func (f *files) makeRegistry(ctx context.Context, reg *registry) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	return f.db.UpdateAlone(ctx, installTimeout, func(tx *sqlite.Tx) error {
		now := registry{database: reg.database}
		if err := now.load(tx.Query); err != nil {
			return err
		}
		if now.stale() {
			if err := now.install(ctx, tx); err != nil {
				return err
			}
		}
		if err := now.loadVersion(tx.Query); err != nil {
			return err
		}
		*reg = now
		return nil
	})
}

// registries looks at all database files.
func registries(query querier) ([]registry, error) {
	var all []registry
	err := query("SELECT name FROM pragma_database_list WHERE name <> 'temp' ORDER BY seq", nil, func(row []driver.Value) error {
		all = append(all, registry{database: row[0].(string)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		if err := all[i].load(query); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (reg *registry) loadVersion(query querier) error {
	return query(schemaVersion(reg.database), nil, func(row []driver.Value) error {
		reg.schema, _ = row[0].(int64)
		return nil
	})
}

func (reg *registry) load(query querier) error {
	if err := reg.loadVersion(query); err != nil {
		return err
	}
	reg.have, reg.want = map[string]string{}, map[string]string{}
	declared := map[string]string{}
	parts := 0
	err := query("SELECT type, name, sql FROM "+quote(reg.database)+`.sqlite_schema WHERE type = 'table' AND (name IN ('_file', '_file_usage') OR sql LIKE '%std.FileUpload%')
		OR type = 'trigger' AND substr(name, 1, 6) = '_file_'`, nil, func(row []driver.Value) error {
		kind, name, text := row[0], row[1].(string), row[2].(string)
		switch {
		case kind == "trigger":
			reg.have[name] = text
		case name == "_file", name == "_file_usage":
			parts++
		case !strings.HasPrefix(strings.ToUpper(text), "CREATE VIRTUAL"):
			declared[name] = text
		}
		return nil
	})
	if err != nil {
		return err
	}
	reg.exists = parts == 2
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		columns, err := fileColumns(query, reg.database, name, declared[name])
		if err != nil {
			return err
		}
		if len(columns) > 0 {
			t := fileTable{name, columns}
			reg.tables = append(reg.tables, t)
			maps.Copy(reg.want, t.triggers())
		}
	}
	if reg.exists || len(reg.tables) > 0 {
		maps.Copy(reg.want, usageTriggers())
	}
	return nil
}

// fileColumns returns the names of the file columns of a table. Those that are
// generated hold copies and do not count.
func fileColumns(query querier, database, name, declared string) (columns []string, err error) {
	t := &table{name: name, byName: map[string]*column{}}
	err = query("SELECT name, hidden FROM pragma_table_xinfo(?1, ?2)", []driver.Value{name, database}, func(row []driver.Value) error {
		c := &column{name: row[0].(string), generated: row[1] != int64(0)}
		t.columns = append(t.columns, c)
		t.byName[sqltoken.Fold(c.name)] = c
		return nil
	})
	if err == nil {
		err = t.applyChecks(declared)
	}
	for _, c := range t.columns {
		if !c.generated && (c.format == fileFormat || c.format == filesFormat) {
			columns = append(columns, c.name)
		}
	}
	return columns, err
}

// stale reports whether there is something to install.
func (reg registry) stale() bool {
	return len(reg.tables) > 0 && !reg.exists || !maps.Equal(reg.have, reg.want)
}

func (reg registry) install(ctx context.Context, tx *sqlite.Tx) error {
	count := reg.recount()
	if tables, ok := reg.uncounted(); ok {
		count = []string{reg.count(tables)}
	}
	db := quote(reg.database)
	script := []string{strings.ReplaceAll(registrySQL, "$", db)}
	for _, name := range slices.Sorted(maps.Keys(reg.have)) {
		if reg.have[name] != reg.want[name] {
			script = append(script, "DROP TRIGGER "+db+"."+quote(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reg.want)) {
		if reg.have[name] != reg.want[name] {
			script = append(script, createTrigger+db+"."+strings.TrimPrefix(reg.want[name], createTrigger))
		}
	}
	return execute(ctx, tx, append(script, count...))
}

func execute(ctx context.Context, tx *sqlite.Tx, script []string) error {
	for _, statements := range script {
		if _, err := tx.ExecContext(ctx, statements); err != nil {
			return err
		}
	}
	return nil
}

// uncounted returns the tables, with those columns, whose values are not in
// the counts. ok is false if that cannot be told from the triggers there are.
func (reg registry) uncounted() (tables []fileTable, ok bool) {
	if !reg.exists {
		return nil, false
	}
	known := func(triggers map[string]string) (all, none bool) {
		all, none = true, true
		for name, text := range triggers {
			have, there := reg.have[name]
			all, none = all && have == text, none && !there
		}
		return all, none
	}
	if all, _ := known(usageTriggers()); !all {
		return nil, false
	}
	for name := range reg.have {
		if _, ok := reg.want[name]; !ok {
			return nil, false // of a table that had another name
		}
	}
	for _, t := range reg.tables {
		n := len(t.columns) // how many are counted: new columns come last
		for ; n > 0; n-- {
			if all, _ := known(fileTable{t.name, t.columns[:n]}.triggers()); all {
				break
			}
		}
		if _, none := known(t.triggers()); n == 0 && !none {
			return nil, false
		}
		if n < len(t.columns) {
			tables = append(tables, fileTable{t.name, t.columns[n:]})
		}
	}
	return tables, true
}

// triggers returns the triggers that count for a table. They use nothing but what SQLite has of its own, so that every program
// can write to the table, and survive ALTER TABLE … RENAME.
func (t fileTable) triggers() map[string]string {
	added := `INSERT INTO "_file" (id, size, refs) SELECT id, 0, n FROM (` + t.counts("NEW") + `) WHERE 1` +
		` ON CONFLICT (id) DO UPDATE SET refs = refs + excluded.refs; `
	removed := `UPDATE "_file" SET refs = max(0, refs - gone.n) FROM (` + t.counts("OLD") + `) AS gone WHERE "_file".id = gone.id; `
	var names, changed []string
	for _, c := range t.columns {
		names = append(names, quote(c))
		changed = append(changed, "NEW."+quote(c)+" IS NOT OLD."+quote(c))
	}
	on := " ON " + quote(t.name)
	return namedTriggers(t.name, map[string]string{
		"insert": "INSERT" + on + " BEGIN " + added,
		"update": "UPDATE OF " + strings.Join(names, ", ") + on + " WHEN " + strings.Join(changed, " OR ") + " BEGIN " + added + removed,
		"delete": "DELETE" + on + " BEGIN " + removed,
	})
}

// counts returns a query for how often each file is in the file columns of a
// row: its id and n.
func (t fileTable) counts(row string) string {
	var parts []string
	for _, c := range t.columns {
		parts = append(parts, "SELECT "+fileID+" AS id FROM "+fileElements(row+"."+quote(c)))
	}
	return countIDs(parts)
}

func countIDs(parts []string) string {
	return "SELECT id, count(*) AS n FROM (" + strings.Join(parts, " UNION ALL ") + ") WHERE typeof(id) = 'text' GROUP BY id"
}

// fileID is the id of an element.
const fileID = "CASE e.type WHEN 'object' THEN json_extract(e.value, '$.id') END"

// fileElements returns a table of the files in the value x, which may be
// anything.
func fileElements(x string) string {
	return "json_each(CASE WHEN typeof(" + x + ") = 'text' AND json_valid(" + x + ") THEN" +
		" CASE json_type(" + x + ") WHEN 'array' THEN " + x + " WHEN 'object' THEN json_array(json(" + x + ")) END END) AS e"
}

// counts is the func for all rows of tables.
func (reg registry) counts(tables []fileTable) string {
	parts := []string{"SELECT NULL AS id WHERE 0"}
	for _, t := range tables {
		for _, c := range t.columns {
			parts = append(parts, "SELECT "+fileID+" FROM "+quote(reg.database)+"."+quote(t.name)+" AS r, "+fileElements("r."+quote(c)))
		}
	}
	return countIDs(parts)
}

// count returns a statement that adds the rows of tables to the counts.
func (reg registry) count(tables []fileTable) string {
	return "INSERT INTO " + quote(reg.database) + `."_file" (id, size, refs) SELECT id, 0, n FROM (` + reg.counts(tables) + ") WHERE 1" +
		" ON CONFLICT (id) DO UPDATE SET refs = refs + excluded.refs"
}

// recount returns statements that set all counts and sums to what the rows say.
func (reg registry) recount() []string {
	file, usage := quote(reg.database)+`."_file"`, quote(reg.database)+`."_file_usage"`
	return []string{
		"INSERT INTO " + file + " (id, size, refs) SELECT id, 0, n FROM (" + reg.counts(reg.tables) + ") WHERE 1 ON CONFLICT (id) DO UPDATE SET refs = excluded.refs",
		"UPDATE " + file + " SET refs = 0 WHERE refs <> 0 AND id NOT IN (SELECT id FROM (" + reg.counts(reg.tables) + "))",
		"DELETE FROM " + usage,
		"INSERT INTO " + usage + " (owner, bytes) SELECT quote(owner), sum(size) FROM " + file + " GROUP BY owner HAVING sum(size) <> 0 UNION ALL SELECT '', total(size) FROM " + file,
	}
}

// miscounted returns a query for whether a count is wrong: REPLACE deletes rows
// without firing triggers.
func (reg registry) miscounted() string {
	file := quote(reg.database) + `."_file"`
	return "WITH c AS MATERIALIZED (" + reg.counts(reg.tables) + ") SELECT EXISTS (SELECT 1 FROM c LEFT JOIN " + file + " AS f ON f.id = c.id WHERE f.refs IS NOT c.n)" +
		" OR (SELECT count(*) FROM " + file + " WHERE refs <> 0) <> (SELECT count(*) FROM c)"
}
