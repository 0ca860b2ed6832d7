package tlsauto_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/tlsauto"
)

var (
	_ tlsauto.Store  = (*tlsauto.SQLStore)(nil)
	_ tlsauto.Leaser = (*tlsauto.SQLStore)(nil)
)

func openSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.PingContext(t.Context()); err != nil { // several connections at once would lock each other out of WAL
		t.Fatal(err)
	}
	return db
}

func newSQLStore(t testing.TB, db *sql.DB, cfg tlsauto.SQLStoreConfig) *tlsauto.SQLStore {
	t.Helper()
	s, err := tlsauto.NewSQLStore(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// secretKey is a master key that begins with b.
func secretKey(b byte) []byte { return bytes.Repeat([]byte{b, 1}, 16) }

func wantValue(t *testing.T, s tlsauto.Store, key, want string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); err != nil || string(got) != want {
		t.Errorf("%s: %.40q, %v; want %.40q", key, got, err, want)
	}
}

func TestSQLStore(t *testing.T) {
	t.Parallel()
	db := openSQL(t, filepath.Join(t.TempDir(), "a.db"))
	s := newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1)})
	ctx := t.Context()
	for _, key := range []string{"a", "0123456789abcdef+example.com", "_wildcard.example.com", strings.Repeat("x", 200), ".-_+Z"} {
		if _, err := s.Get(ctx, key); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("%s is not there: %v", key, err)
		}
		for _, value := range []string{"one", "", strings.Repeat("v", 1<<20)} {
			if err := s.Put(ctx, key, []byte(value)); err != nil {
				t.Errorf("put %s: %v", key, err)
			}
			wantValue(t, s, key, value)
		}
		wantValue(t, newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1)}), key, strings.Repeat("v", 1<<20))
		for range 2 {
			if err := s.Delete(ctx, key); err != nil {
				t.Errorf("delete %s: %v", key, err)
			}
		}
		if _, err := s.Get(ctx, key); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("%s is deleted: %v", key, err)
		}
	}
	for _, key := range []string{"", ":check", "a/b", "../a", "a\x00", "a b", "é", strings.Repeat("x", 201)} {
		_, getErr := s.Get(ctx, key)
		_, leaseErr := s.Acquire(ctx, key, "me", time.Now(), time.Minute)
		for _, err := range []error{getErr, s.Put(ctx, key, nil), s.Delete(ctx, key), leaseErr, s.Release(ctx, key, "me")} {
			if err == nil || !strings.Contains(err.Error(), "is not a key") {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
	if err := s.Put(ctx, "a", make([]byte, 1<<20+1)); err == nil {
		t.Error("a value of more than a megabyte was stored")
	}
	if _, err := db.Exec(`INSERT INTO _tls VALUES ('huge', zeroblob(2000000), 0), ('short', x'01', 0)`); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"huge", "short"} {
		if _, err := s.Get(ctx, key); err == nil || errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("a damaged value is an error: %v", err)
		}
	}
	if _, err := s.Get(ctx, "huge"); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("a huge value: %v", err)
	}
}

func TestNewSQLStoreRefuses(t *testing.T) {
	t.Parallel()
	db := openSQL(t, filepath.Join(t.TempDir(), "a.db"))
	for _, tt := range []struct {
		db   *sql.DB
		cfg  tlsauto.SQLStoreConfig
		want []string
	}{
		{nil, tlsauto.SQLStoreConfig{Table: `x"; DROP TABLE y; --`}, []string{"database is nil", "exactly one", "Table"}},
		{db, tlsauto.SQLStoreConfig{Key: secretKey(1), KeyFile: "k"}, []string{"exactly one"}},
		{db, tlsauto.SQLStoreConfig{Key: secretKey(1), Table: "sqlite_x"}, []string{"Table"}},
		{db, tlsauto.SQLStoreConfig{Key: secretKey(1), Table: "1x"}, []string{"Table"}},
		{db, tlsauto.SQLStoreConfig{Key: secretKey(1)[:31]}, []string{"32 bytes"}},
		{db, tlsauto.SQLStoreConfig{KeyFile: t.TempDir()}, []string{"not a regular file"}},
	} {
		_, err := tlsauto.NewSQLStore(t.Context(), tt.db, tt.cfg)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	}
}

// A copy of the database gives nothing away, and its rows cannot be exchanged.
func TestI6_SQLStoreIsSealed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	db := openSQL(t, path)
	s := newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1)})
	other := newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1), Table: "other"})
	ctx := t.Context()
	const secret = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----\n"
	for _, err := range []error{
		s.Put(ctx, "a", []byte(secret)), s.Put(ctx, "b", []byte("B")), other.Put(ctx, "a", []byte("other")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{path, path + "-wal"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, marker := range []string{"PRIVATE KEY", "-----BEGIN", "MIGHAgEAMBMGByqGSM49"} {
			if bytes.Contains(data, []byte(marker)) {
				t.Errorf("%s has %q", filepath.Base(file), marker)
			}
		}
	}
	for _, move := range []string{
		`UPDATE _tls SET value = (SELECT value FROM _tls WHERE name = 'b') WHERE name = 'a'`,
		`UPDATE _tls SET value = (SELECT value FROM other WHERE name = 'a') WHERE name = 'a'`,
		`UPDATE _tls SET value = (SELECT value FROM _tls WHERE name = ':check') WHERE name = 'a'`,
	} {
		if _, err := db.Exec(move); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(ctx, "a"); !errors.Is(err, seal.ErrOpen) || got != nil {
			t.Errorf("after %s: %q, %v", move, got, err)
		}
	}
}

func TestSQLStoreKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openSQL(t, filepath.Join(dir, "a.db"))
	file := filepath.Join(dir, "key")
	cfg := tlsauto.SQLStoreConfig{KeyFile: file}

	// Several processes may be the first.
	stores := make([]*tlsauto.SQLStore, 8)
	var all sync.WaitGroup
	for i := range stores {
		all.Go(func() {
			var err error
			if stores[i], err = tlsauto.NewSQLStore(t.Context(), db, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if err := stores[0].Put(t.Context(), "a", []byte("A")); err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		wantValue(t, s, "a", "A")
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}

	// What is there stays as it is when the key is missing or another.
	before := dump(t, db)
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := tlsauto.NewSQLStore(t.Context(), db, cfg); err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("without the key file: %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new key file was made: %v", err)
	}
	if _, err := tlsauto.NewSQLStore(t.Context(), db, tlsauto.SQLStoreConfig{Key: secretKey(1)}); err == nil ||
		!strings.Contains(err.Error(), "is not the one") || strings.Contains(err.Error(), string(secretKey(1))) {
		t.Errorf("with another key: %v", err)
	}
	if after := dump(t, db); !slices.Equal(after, before) {
		t.Error("a wrong key has changed the table")
	}
}

// dump lists the rows of the table.
func dump(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.Query(`SELECT name || ' ' || hex(value) FROM _tls ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
	return all
}

func TestSQLStoreNewMasterKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openSQL(t, filepath.Join(dir, "a.db"))
	oldFile, newFile, both := filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "both")
	s := newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: oldFile})
	for i := range 250 {
		if err := s.Put(t.Context(), fmt.Sprintf("%d", i), fmt.Append(nil, "value ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`INSERT INTO _tls VALUES ('1damaged', x'01', 0), ('huge', zeroblob(2000000), 0)`); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateFile(newFile); err != nil {
		t.Fatal(err)
	}
	joinKeys(t, both, newFile, oldFile)

	if _, err := tlsauto.NewSQLStore(t.Context(), db, tlsauto.SQLStoreConfig{KeyFile: newFile}); err == nil {
		t.Error("the new key alone opens nothing, but there was no error")
	}
	newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: both})
	alone := newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: newFile})
	for i := range 250 {
		wantValue(t, alone, fmt.Sprintf("%d", i), fmt.Sprintf("value %d", i))
	}
	sealedAnew := dump(t, db)
	newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: both})
	if !slices.Equal(dump(t, db), sealedAnew) {
		t.Error("what was sealed anew was sealed once more")
	}

	// A process that was started before still stores under the old key.
	for _, key := range []string{"0", "late"} {
		if err := s.Put(t.Context(), key, []byte("by the old process")); err != nil {
			t.Fatal(err)
		}
	}
	newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: both})
	for _, key := range []string{"0", "late"} {
		wantValue(t, alone, key, "by the old process")
	}
	wantValue(t, alone, "1", "value 1")
}

func joinKeys(t *testing.T, to string, from ...string) {
	t.Helper()
	var text []byte
	for _, file := range from {
		line, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, line...)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What another process puts while values are sealed anew is not lost.
func TestSQLStoreNewMasterKeyWhileInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openSQL(t, filepath.Join(dir, "a.db"))
	oldFile, newFile, both := filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "both")
	s := newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: oldFile})
	if _, err := seal.CreateFile(newFile); err != nil {
		t.Fatal(err)
	}
	joinKeys(t, both, newFile, oldFile)
	for _, put := range []struct{ key, value string }{{"a", "A"}, {"b", "newer"}} {
		if err := s.Put(t.Context(), put.key, []byte(put.value)); err != nil {
			t.Fatal(err)
		}
	}
	// The value that b is to have, as the process with the old key seals it, comes after all were read.
	if _, err := db.Exec(`CREATE TABLE held AS SELECT value FROM _tls WHERE name = 'b'`); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "b", []byte("older")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TRIGGER other AFTER UPDATE ON _tls WHEN NEW.name = 'a' BEGIN
		UPDATE _tls SET value = (SELECT value FROM held) WHERE name = 'b'; END`); err != nil {
		t.Fatal(err)
	}
	anew := newSQLStore(t, db, tlsauto.SQLStoreConfig{KeyFile: both})
	wantValue(t, anew, "a", "A")
	wantValue(t, anew, "b", "newer")
}

func TestSQLStoreLeases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	var handles []*tlsauto.SQLStore
	for range 2 {
		handles = append(handles, newSQLStore(t, openSQL(t, path), tlsauto.SQLStoreConfig{Key: secretKey(1)}))
	}
	now := time.Now()
	for round := range 5 {
		lease := fmt.Sprintf("order+%d", round)
		var winners atomic.Int32
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				got, err := handles[i%2].Acquire(t.Context(), lease, fmt.Sprintf("owner %d", i), now, time.Minute)
				if err != nil {
					t.Error(err)
				}
				if got {
					winners.Add(1)
				}
			})
		}
		all.Wait()
		if winners.Load() != 1 {
			t.Errorf("round %d: %d have the lease", round, winners.Load())
		}
	}
}

// testLeaser is what every Leaser does.
func testLeaser(t *testing.T, s tlsauto.Leaser) {
	start := time.UnixMilli(1_800_000_000_000)
	for i, step := range []struct {
		owner   string
		after   time.Duration // since start
		release string
		want    bool
	}{
		{owner: "a", want: true},
		{owner: "b", after: time.Minute - time.Millisecond, want: false},
		{owner: "a", after: 30 * time.Second, want: true}, // renewed: until 1:30
		{owner: "b", after: time.Minute, want: false},
		{owner: "b", after: 90 * time.Second, want: true},
		{owner: "a", after: 91 * time.Second, want: false},
		{release: "a"}, // who does not have it any more
		{owner: "a", after: 92 * time.Second, want: false},
		{release: "b"},
		{owner: "a", after: 93 * time.Second, want: true},
	} {
		if step.release != "" {
			if err := s.Release(t.Context(), "order+x", step.release); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := s.Acquire(t.Context(), "order+x", step.owner, start.Add(step.after), time.Minute)
		if err != nil || got != step.want {
			t.Errorf("step %d: %t, %v; want %t", i, got, err, step.want)
		}
	}
	if got, err := s.Acquire(t.Context(), "order+y", "b", start, time.Minute); err != nil || !got {
		t.Errorf("another lease: %t, %v", got, err)
	}

	// Of a clock that is ahead, or of an owner whose leases are long.
	const day = 24 * time.Hour
	for i, tt := range []struct {
		ahead, ttl time.Duration // of the owner
		mine       time.Duration // the ttl of who comes next
		want       bool
	}{
		{ahead: day - time.Minute, ttl: time.Minute, mine: time.Minute, want: false},
		{ahead: day, ttl: time.Minute, mine: time.Minute, want: true},
		{ahead: 300 * day, ttl: time.Minute, mine: time.Minute, want: true},
		{ttl: day, mine: time.Minute, want: false},
		{ttl: 2 * day, mine: 2 * day, want: false},
		{ahead: time.Minute, ttl: 2 * day, mine: 2 * day, want: true},
	} {
		lease := fmt.Sprintf("order+%d", i)
		if got, err := s.Acquire(t.Context(), lease, "a", start.Add(tt.ahead), tt.ttl); err != nil || !got {
			t.Errorf("lease %d: %t, %v", i, got, err)
		}
		if got, err := s.Acquire(t.Context(), lease, "b", start, tt.mine); err != nil || got != tt.want {
			t.Errorf("lease %d, by another: %t, %v; want %t", i, got, err, tt.want)
		}
		if got, err := s.Acquire(t.Context(), lease, "a", start, tt.mine); err != nil || got == tt.want {
			t.Errorf("lease %d, by the first: %t, %v; want %t", i, got, err, !tt.want)
		}
	}
}

func TestLeasers(t *testing.T) {
	t.Parallel()
	db := openSQL(t, filepath.Join(t.TempDir(), "a.db"))
	testLeaser(t, newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1)}))
	testLeaser(t, tlsauto.NewMemoryStore().(tlsauto.Leaser))
}

// What processes leave that end without a word is removed in passing, and nothing else.
func TestSQLStoreCleans(t *testing.T) {
	t.Parallel()
	db := openSQL(t, filepath.Join(t.TempDir(), "a.db"))
	now := time.UnixMilli(1_800_000_000_000)
	s := newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1), Now: func() time.Time { return now }})
	acquire := func(lease string) {
		t.Helper()
		if got, err := s.Acquire(t.Context(), lease, "me", now, time.Minute); err != nil || !got {
			t.Fatal(got, err)
		}
	}
	acquire("old")
	for _, key := range []string{"http01+x", "tlsalpn01+example.com", "0123+http01+x", "http01", "tls", "plan+example.com"} {
		if err := s.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(59 * time.Minute)
	acquire("recent")
	if err := s.Put(t.Context(), "http01+y", nil); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute)
	acquire("new")
	names := func(table string) (names []string) {
		t.Helper()
		rows, err := db.Query(`SELECT name FROM ` + table + ` ORDER BY name`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return names
	}
	if got, want := names("_tls"), []string{"0123+http01+x", ":check", "http01", "http01+y", "plan+example.com", "tls"}; !slices.Equal(got, want) {
		t.Errorf("values %q, want %q", got, want)
	}
	if got, want := names("_tls_lease"), []string{"new", "recent"}; !slices.Equal(got, want) {
		t.Errorf("leases %q, want %q", got, want)
	}
}

func TestSQLStoreContext(t *testing.T) {
	t.Parallel()
	db := openSQL(t, filepath.Join(t.TempDir(), "a.db"))
	s := newSQLStore(t, db, tlsauto.SQLStoreConfig{Key: secretKey(1)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, newErr := tlsauto.NewSQLStore(ctx, db, tlsauto.SQLStoreConfig{Key: secretKey(1)})
	_, getErr := s.Get(ctx, "a")
	_, acquireErr := s.Acquire(ctx, "a", "me", time.Now(), time.Minute)
	for i, err := range []error{newErr, getErr, s.Put(ctx, "a", nil), s.Delete(ctx, "a"), acquireErr, s.Release(ctx, "a", "me")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestSQLStoreLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	cfg := tlsauto.SQLStoreConfig{KeyFile: path + ".key"}
	db := openSQL(t, path)
	s := newSQLStore(t, db, cfg)
	if err := s.Put(t.Context(), "a", []byte("A")); err != nil {
		t.Fatal(err)
	}
	impatient, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=20&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer impatient.Close()
	s = newSQLStore(t, impatient, cfg)

	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	_, acquireErr := s.Acquire(t.Context(), "x", "me", time.Now(), time.Minute)
	for _, err := range []error{s.Put(t.Context(), "a", []byte("B")), acquireErr} {
		if err == nil || !strings.Contains(err.Error(), "locked") {
			t.Errorf("locked: %v", err)
		}
	}
	wantValue(t, s, "a", "A")
	newSQLStore(t, impatient, cfg) // a start needs no lock either
}
