package records_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// openDB opens an empty database and runs schema in it.
func openDB(t testing.TB, schema string) *sqlite.DB {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "test.db"), schema, sqlite.Options{})
}

// openFile opens the database at path. Durability is not what these tests
// are about, so they do without waiting for the disk.
func openFile(t testing.TB, path, schema string, opts sqlite.Options) *sqlite.DB {
	t.Helper()
	opts.Synchronous, opts.Ballast, opts.Logger = sqlite.Normal, -1, quiet()
	db, err := sqlite.Open(context.Background(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if schema != "" {
		execSQL(t, db, schema)
	}
	return db
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// execSQL runs statements in one transaction.
func execSQL(t testing.TB, db *sqlite.DB, script string, args ...any) {
	t.Helper()
	err := db.Update(context.Background(), func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(context.Background(), script, args...)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

// rowsOf returns the rows of a query, each value in SQL notation.
func rowsOf(t testing.TB, db *sqlite.DB, query string, args ...any) [][]string {
	t.Helper()
	var all [][]string
	err := db.View(context.Background(), func(tx *sqlite.Tx) error {
		rows, err := tx.QueryContext(context.Background(), query, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		for rows.Next() {
			row := make([]string, len(names))
			dst := make([]any, len(names))
			for i := range row {
				dst[i] = &row[i]
			}
			if err := rows.Scan(dst...); err != nil {
				return err
			}
			all = append(all, row)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

// one returns the only value of a query.
func one(t testing.TB, db *sqlite.DB, query string, args ...any) string {
	t.Helper()
	rows := rowsOf(t, db, query, args...)
	if len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("%s: %v, want one value", query, rows)
	}
	return rows[0][0]
}

// dump returns everything that is in the application's tables, in SQL
// notation, to see whether something has changed.
func dump(t testing.TB, db *sqlite.DB) string {
	t.Helper()
	var b strings.Builder
	for _, table := range rowsOf(t, db, `SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> '_records_key' ORDER BY name`) {
		fmt.Fprintf(&b, "%s\n", table[1])
		var columns []string
		for _, c := range rowsOf(t, db, `SELECT name FROM pragma_table_xinfo(?1)`, table[0]) {
			columns = append(columns, `quote("`+strings.ReplaceAll(c[0], `"`, `""`)+`")`)
		}
		for _, row := range rowsOf(t, db, `SELECT `+strings.Join(columns, ",")+` FROM "`+table[0]+`" ORDER BY 1`) {
			fmt.Fprintf(&b, "  %s\n", strings.Join(row, ", "))
		}
	}
	return b.String()
}

type callerKey struct{}

func callerOf(ctx context.Context) records.Caller {
	c, _ := ctx.Value(callerKey{}).(records.Caller)
	return c
}

// signIn takes the caller from the header X-Caller: a number, x'…' or text.
func signIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.Header.Get("X-Caller")
		if who == "" {
			next.ServeHTTP(w, r)
			return
		}
		var id any = who
		if n, err := strconv.ParseInt(who, 10, 64); err == nil {
			id = n
		} else if digits, ok := strings.CutPrefix(who, "x:"); ok {
			b, err := hex.DecodeString(digits)
			if err != nil {
				panic(err)
			}
			id = b
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, records.Caller{ID: id})))
	})
}

// serve returns a handler for the APIs.
func serve(t testing.TB, db *sqlite.DB, apis ...records.API) http.Handler {
	t.Helper()
	return serveConfig(t, db, records.Config{APIs: apis})
}

// tryServe is like serve but returns the mistakes of the configuration.
func tryServe(db *sqlite.DB, apis ...records.API) (http.Handler, error) {
	svc, err := records.New(db, records.Config{APIs: apis, Caller: callerOf, Logger: quiet()})
	return signIn(svc), err
}

func serveConfig(t testing.TB, db *sqlite.DB, cfg records.Config) http.Handler {
	t.Helper()
	if cfg.Caller == nil {
		cfg.Caller = callerOf
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	if cfg.QueryTimeout == 0 {
		cfg.QueryTimeout = patience // a machine that is busy interrupts nothing
	}
	svc, err := records.New(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return signIn(svc)
}

// everything is all permissions.
const everything = records.Create | records.Read | records.Update | records.Delete

// response is what came back.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) String() string { return fmt.Sprintf("%d %q", r.status, r.body) }

// same is everything that a caller can see of r.
func (r response) same() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", r.status)
	for _, name := range slices.Sorted(maps.Keys(r.header)) {
		if name != "Date" {
			fmt.Fprintf(&b, "%s: %q\n", name, r.header[name])
		}
	}
	return b.String() + "\n" + r.body
}

// call makes a request as who ("" is anonymous). A body is JSON unless header,
// a list of names and values, says otherwise.
func call(h http.Handler, who, method, target, body string, header ...string) response {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if who != "" {
		r.Header.Set("X-Caller", who)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return response{w.Code, w.Result().Header, w.Body.String()}
}

func get(h http.Handler, who, target string) response { return call(h, who, "GET", target, "") }

// want fails the test unless the answer is as expected.
func want(t testing.TB, r response, status int, body string) {
	t.Helper()
	if r.status != status || r.body != body {
		t.Errorf("got %d %q, want %d %q", r.status, r.body, status, body)
	}
}

func wantStatus(t testing.TB, r response, status int) {
	t.Helper()
	if r.status != status {
		t.Errorf("got %v, want status %d", r, status)
	}
}

// page is a list response.
type page struct {
	Cursor  string            `json:"cursor"`
	Total   *int              `json:"total_count"`
	Records []json.RawMessage `json:"records"`
}

func list(t testing.TB, h http.Handler, who, target string) page {
	t.Helper()
	r := get(h, who, target)
	var p page
	if r.status != 200 {
		t.Fatalf("GET %s: %v", target, r)
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("GET %s: %v: %s", target, err, r.body)
	}
	return p
}

// column returns one member of every record, as JSON.
func (p page) column(t testing.TB, name string) []string {
	t.Helper()
	values := make([]string, 0, len(p.Records))
	for _, raw := range p.Records {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		values = append(values, string(m[name]))
	}
	return values
}

// idsOf returns the ids of a create response.
func idsOf(t testing.TB, r response) []string {
	t.Helper()
	var v struct {
		IDs []string `json:"ids"`
	}
	if r.status != 200 {
		t.Fatalf("create: %v", r)
	}
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatal(err)
	}
	return v.IDs
}

func fixedCaller(id any) func(context.Context) records.Caller {
	return func(context.Context) records.Caller { return records.Caller{ID: id} }
}
