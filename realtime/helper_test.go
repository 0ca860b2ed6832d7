package realtime_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		if err := runWriter(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// patience is for what must come: a machine that is busy may need a while, so
// that it only tells what hangs.
const patience = 2 * time.Minute

// waitUntil waits for a condition.
func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %v", patience)
		}
	}
}

// mainLog returns the log of the main database, with tables tracked.
func mainLog(t testing.TB, db *sqlite.DB, tables ...string) *sqlite.ChangeLog {
	t.Helper()
	log, err := db.ChangeLog("main")
	if err == nil {
		err = log.Track(context.Background(), tables...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func newService(t testing.TB, db *sqlite.DB, cfg realtime.Config) *realtime.Service {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	svc, err := realtime.New(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	return svc
}

// routes is the service's handlers where applications have them.
func routes(svc *realtime.Service) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/records/v1/{api}/subscribe/{record}", svc.ServeRecords)
	mux.HandleFunc("/api/realtime/v1/{channel}", svc.ServeChannel)
	mux.HandleFunc("/api/realtime/v1/ticket", svc.ServeTicket)
	return mux
}

// views are what can be subscribed to, by API.
type views map[string]*testView

func (v views) subscribe(r *http.Request, api, record string) (*realtime.Subscription, error) {
	view := v[api]
	if view == nil {
		return nil, &realtime.Error{Status: http.StatusMethodNotAllowed}
	}
	sub := &realtime.Subscription{View: view}
	if user := userOf(r.Context()); user != "" {
		sub.User = user
	}
	if record != "*" {
		id, err := strconv.ParseInt(record, 10, 64)
		if err != nil {
			return nil, &realtime.Error{Status: http.StatusBadRequest, Text: "Invalid id"}
		}
		sub.Record = id
	}
	return sub, nil
}

// A testView shows all columns of a table whose first column is its key.
type testView struct {
	table string

	// sees decides who sees what; nil: everybody sees everything.
	sees     func(q *sqlite.Scratch, user any, row []any) (bool, error)
	same     bool         // for all users
	filtered bool         // by a client
	err      func() error // nil: no error
	key      func()       // is called by RowKey, if not nil
}

func (v *testView) Key() string              { return fmt.Sprintf("%s %p", v.table, v) }
func (v *testView) Source() (string, string) { return "main", v.table }
func (v *testView) PerUser() bool            { return v.sees != nil && !v.same }
func (v *testView) Filtered() bool           { return v.filtered }
func (v *testView) Encoding() any            { return v }

func (v *testView) Err() error {
	if v.err == nil {
		return nil
	}
	return v.err()
}

func (v *testView) Judge(q *sqlite.Scratch, changes []*sqlite.Change, users []any, see func(change, user int, old bool)) error {
	if !v.PerUser() {
		users = []any{nil}
	}
	for i, c := range changes {
		for _, old := range []bool{true, false} {
			image := v.image(c, old)
			if image == nil {
				continue
			}
			for u, user := range users {
				ok, err := true, error(nil)
				if v.sees != nil {
					ok, err = v.sees(q, user, image)
				}
				if err != nil {
					return err
				}
				if ok {
					see(i, u, old)
				}
			}
		}
	}
	return nil
}

func (v *testView) image(c *sqlite.Change, old bool) []any {
	image := c.New
	if old {
		image = c.Old
	}
	if image == nil {
		return nil
	}
	row := make([]any, len(image))
	for i, value := range image {
		row[i] = value
	}
	return row
}

func (v *testView) RowKey(c *sqlite.Change, old bool) any {
	if v.key != nil {
		v.key()
	}
	return v.image(c, old)[0]
}

func (v *testView) AppendRow(dst []byte, c *sqlite.Change, old bool) ([]byte, error) {
	for i, value := range v.image(c, old) {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		dst = fmt.Appendf(dst, "%s%q:", sep, c.Columns[i])
		switch value := value.(type) {
		case nil:
			dst = append(dst, "null"...)
		case string:
			dst = strconv.AppendQuote(dst, value)
		default:
			dst = fmt.Append(dst, value)
		}
	}
	return append(dst, '}'), nil
}
