package tlsauto

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bedplate/bedplate/internal/seal"
)

// SQLStoreConfig is what an [SQLStore] is made of.
type SQLStoreConfig struct {
	// KeyFile is the file of the master key that seals all values: in the format that package auth has,
	// so that one file can serve both. It is made when it does not exist, unless the database already
	// holds sealed values. Key is 32 secret bytes to use instead. Exactly one of them must be given.
	KeyFile string
	Key     []byte

	// Table is the table of the values; default "_tls". That of the leases has "_lease" added.
	Table string

	Now func() time.Time // default time.Now
}

// An SQLStore is a [Store] and [Leaser] in an SQLite database, for all processes that open it. Values
// are sealed (AES-256-GCM) together with the table and the key that they belong to, so that a copy of
// the database gives no private key away, and no value can pass for another. What that needs, the master key, is
// outside of the database, which may be replicated and backed up.
//
// A call that finds the database locked waits as long as the busy timeout of its connection says, even
// when its context ends before. Create it with [NewSQLStore].
type SQLStore struct {
	db      *sql.DB
	key     *seal.Key
	table   string
	query   sqlStatements
	now     func() time.Time
	cleaned atomic.Int64 // when; Unix milliseconds
}

const (
	maxSQLValue     = 1 << 20
	maxTableName    = 60
	resealed        = 100            // rows in a transaction
	cleanEvery      = time.Hour      // in passing, what is older than
	leftoverAge     = time.Hour      // and of no use to anybody
	checkRow        = ":check"       // which is no key, as that has a colon
	checkRowValue   = "tlsauto/1"    // what is sealed there
	maxStoreKey     = 200            // see Store
	maxOwner        = 200            // bytes
	sqlStoreContext = "tlsauto/sql/" // of what is sealed
)

// sqlStatements is all the SQL of a store. Times are bound, in Unix milliseconds, since SQLite's clock
// may differ from that of the process.
type sqlStatements struct {
	createValues, createLeases   string
	get, put, remove             string
	check, page, reseal          string
	acquire, release             string
	cleanLeases, cleanChallenges string
}

func newStatements(table string) sqlStatements {
	fill := strings.NewReplacer("{values}", `"`+table+`"`, "{leases}", `"`+table+`_lease"`).Replace
	return sqlStatements{
		createValues: fill(`CREATE TABLE IF NOT EXISTS {values} (
			name    TEXT NOT NULL PRIMARY KEY,
			value   BLOB NOT NULL,   -- sealed
			updated INTEGER NOT NULL -- Unix time in milliseconds
		) STRICT, WITHOUT ROWID`),
		createLeases: fill(`CREATE TABLE IF NOT EXISTS {leases} (
			name    TEXT NOT NULL PRIMARY KEY,
			owner   TEXT NOT NULL,
			expires INTEGER NOT NULL -- Unix time in milliseconds
		) STRICT, WITHOUT ROWID`),

		get: fill(`SELECT CASE WHEN length(value) <= ? THEN value END FROM {values} WHERE name = ?`),
		put: fill(`INSERT INTO {values} (name, value, updated) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated = excluded.updated`),
		remove: fill(`DELETE FROM {values} WHERE name = ?`),

		check: fill(`INSERT INTO {values} (name, value, updated) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING`),
		page: fill(`SELECT name, value FROM {values}
			WHERE name > ? AND name <> ? AND length(value) <= ? ORDER BY name LIMIT ?`),
		reseal: fill(`UPDATE {values} SET value = ? WHERE name = ? AND value = ?`),

		acquire: fill(`INSERT INTO {leases} (name, owner, expires) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires = excluded.expires
			WHERE {leases}.owner = excluded.owner OR {leases}.expires <= ? OR {leases}.expires > ?`),
		release: fill(`DELETE FROM {leases} WHERE name = ? AND owner = ?`),

		cleanLeases: fill(`DELETE FROM {leases} WHERE expires <= ?`),
		// In ASCII a comma follows "+", the end of both prefixes.
		cleanChallenges: fill(`DELETE FROM {values} WHERE updated <= ?
			AND (name > 'http01+' AND name < 'http01,' OR name > 'tlsalpn01+' AND name < 'tlsalpn01,')`),
	}
}

// NewSQLStore returns a store in a database of SQLite 3.37 or later, whatever the driver, and makes its
// tables if they are not there. The handle stays the caller's. Its connections should have
// synchronous=FULL, so that what was stored survives a power failure, and a busy timeout.
//
// It is an error, and nothing is lost, if the master key is not the one that the values there are sealed
// under. To replace that, put a new line above the old one in KeyFile: NewSQLStore then, each time,
// seals anew what is sealed under the old one. That can go when no process runs any more that was
// started without the new one, and NewSQLStore has been called once after that.
func NewSQLStore(ctx context.Context, db *sql.DB, cfg SQLStoreConfig) (*SQLStore, error) {
	if err := cfg.complete(db); err != nil {
		return nil, fmt.Errorf("tlsauto: SQL store: configuration: %w", err)
	}
	s := &SQLStore{db: db, table: cfg.Table, query: newStatements(cfg.Table), now: cfg.Now}
	for _, create := range []string{s.query.createValues, s.query.createLeases} {
		if _, err := db.ExecContext(ctx, create); err != nil {
			return nil, fmt.Errorf("tlsauto: SQL store: make the tables: %w", err)
		}
	}
	if err := s.unlock(ctx, cfg); err != nil {
		return nil, fmt.Errorf("tlsauto: SQL store: %w", err)
	}
	return s, nil
}

func (c *SQLStoreConfig) complete(db *sql.DB) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if db == nil {
		bad("the database is nil")
	}
	if (c.Key == nil) == (c.KeyFile == "") {
		bad("exactly one of Key and KeyFile is needed")
	}
	def(&c.Table, "_tls")
	if !isTableName(c.Table) {
		bad("Table %.80q is none: letters, digits and _ are allowed, %d at most, and no digit or sqlite_ at the beginning", c.Table, maxTableName)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return errors.Join(errs...)
}

func isTableName(s string) bool {
	if s == "" || len(s) > maxTableName || '0' <= s[0] && s[0] <= '9' || strings.HasPrefix(strings.ToLower(s), "sqlite_") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}

// unlock takes the master key, and opens what was sealed when the table was made.
func (s *SQLStore) unlock(ctx context.Context, cfg SQLStoreConfig) error {
	sealed, err := s.sealedValue(ctx, checkRow)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("read what the master key is checked with: %w", err)
	}
	if s.key, err = masterKey(cfg, sealed != nil); err != nil {
		return err
	}
	if sealed == nil {
		mine := s.key.Seal(s.sealContext(checkRow), []byte(checkRowValue))
		if _, err := s.db.ExecContext(ctx, s.query.check, checkRow, mine, s.now().UnixMilli()); err != nil {
			return fmt.Errorf("store what the master key is checked with: %w", err)
		}
		if sealed, err = s.sealedValue(ctx, checkRow); err != nil { // perhaps that of another process
			return fmt.Errorf("read what the master key is checked with: %w", err)
		}
	}
	name := cfg.KeyFile
	if cfg.Key != nil {
		name = "Key"
	}
	if _, err := s.key.Open(s.sealContext(checkRow), sealed); errors.Is(err, seal.ErrOtherKey) {
		return fmt.Errorf("the master key, %s, is not the one that the values of table %s are sealed under: use that", name, s.table)
	} else if err != nil {
		return fmt.Errorf("check the master key, %s: %w", name, err)
	}
	if cfg.Key != nil {
		return nil // it is the only one
	}
	if err := s.resealAll(ctx); err != nil {
		return fmt.Errorf("seal the values anew: %w", err)
	}
	return nil
}

func masterKey(cfg SQLStoreConfig, sealed bool) (*seal.Key, error) {
	if cfg.Key != nil {
		key, err := seal.NewKey(cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
		return key, nil
	}
	key, err := seal.LoadFile(cfg.KeyFile)
	switch {
	case err == nil:
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("master key: %w", err)
	case sealed:
		return nil, fmt.Errorf("master key file %s is missing, and the database holds values that are sealed under it: put it back", cfg.KeyFile)
	}
	key, err = seal.CreateFile(cfg.KeyFile)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		key, err = seal.LoadFile(cfg.KeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("make the master key: %w", err)
	}
	return key, nil
}

// resealAll seals what is sealed under an older master key under the first: what was there when that was
// replaced, and what processes that did not know it yet have stored since. The check row is the last, so
// that the first key alone is refused until then. What does not open stays as it is.
func (s *SQLStore) resealAll(ctx context.Context) error {
	for after := ""; ; {
		rows, err := s.page(ctx, after)
		if err != nil {
			return err
		}
		if err := s.reseal(ctx, rows); err != nil {
			return err
		}
		if len(rows) < resealed {
			break
		}
		after = rows[len(rows)-1].name
	}
	sealed, err := s.sealedValue(ctx, checkRow)
	if err != nil {
		return err
	}
	return s.reseal(ctx, []sealedRow{{name: checkRow, value: sealed}})
}

type sealedRow struct {
	name  string
	value []byte
	anew  []byte // the value, sealed under the first key
}

// page returns the rows of keys that follow one.
func (s *SQLStore) page(ctx context.Context, after string) (page []sealedRow, err error) {
	rows, err := s.db.QueryContext(ctx, s.query.page, after, checkRow, maxSQLValue+seal.Overhead, resealed)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r sealedRow
		if err := rows.Scan(&r.name, &r.value); err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

// reseal leaves rows alone that somebody has changed since they were read. It needs the database for
// itself only if there is something to do.
func (s *SQLStore) reseal(ctx context.Context, rows []sealedRow) error {
	var outdated []sealedRow
	for _, r := range rows {
		if !s.key.Outdated(r.value) {
			continue
		}
		if value, err := s.key.Open(s.sealContext(r.name), r.value); err == nil {
			r.anew = s.key.Seal(s.sealContext(r.name), value)
			outdated = append(outdated, r)
		}
	}
	if len(outdated) == 0 {
		return nil
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, r := range outdated {
		if _, err := tx.ExecContext(ctx, s.query.reseal, r.anew, r.name, r.value); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Get returns the value of a key, or [ErrNotFound].
func (s *SQLStore) Get(ctx context.Context, key string) ([]byte, error) {
	if err := checkStoreKey(key); err != nil {
		return nil, err
	}
	sealed, err := s.sealedValue(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrNotFound
	}
	var value []byte
	if err == nil {
		value, err = s.key.Open(s.sealContext(key), sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("tlsauto: get %s from the store: %w", key, err)
	}
	return value, nil
}

func (s *SQLStore) sealedValue(ctx context.Context, name string) ([]byte, error) {
	var sealed []byte
	err := s.db.QueryRowContext(ctx, s.query.get, maxSQLValue+seal.Overhead, name).Scan(&sealed)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrNotFound
	case err == nil && sealed == nil:
		return nil, errValueTooLong
	}
	return sealed, err
}

var errValueTooLong = fmt.Errorf("the value has more than %d bytes", maxSQLValue)

// Put sets the value of a key, of at most 1 MiB.
func (s *SQLStore) Put(ctx context.Context, key string, value []byte) error {
	if err := checkStoreKey(key); err != nil {
		return err
	}
	err := errValueTooLong
	if len(value) <= maxSQLValue {
		_, err = s.db.ExecContext(ctx, s.query.put, key, s.key.Seal(s.sealContext(key), value), s.now().UnixMilli())
	}
	if err != nil {
		return fmt.Errorf("tlsauto: put %s into the store: %w", key, err)
	}
	return nil
}

// Delete removes a key. One that is not there is no error.
func (s *SQLStore) Delete(ctx context.Context, key string) error {
	if err := checkStoreKey(key); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, s.query.remove, key); err != nil {
		return fmt.Errorf("tlsauto: delete %s from the store: %w", key, err)
	}
	return nil
}

// Acquire takes or renews a lease, and reports whether owner has it now. Times count in milliseconds.
func (s *SQLStore) Acquire(ctx context.Context, lease, owner string, now time.Time, ttl time.Duration) (bool, error) {
	if err := checkLease(lease, owner); err != nil {
		return false, err
	}
	result, err := s.db.ExecContext(ctx, s.query.acquire, lease, owner,
		now.Add(ttl).UnixMilli(), now.UnixMilli(), longestLease(now, ttl).UnixMilli())
	var changed int64
	if err == nil {
		changed, err = result.RowsAffected()
	}
	if err != nil {
		return false, fmt.Errorf("tlsauto: acquire lease %s: %w", lease, err)
	}
	s.clean(ctx, now)
	return changed == 1, nil
}

// Release ends a lease if owner has it.
func (s *SQLStore) Release(ctx context.Context, lease, owner string) error {
	if err := checkLease(lease, owner); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, s.query.release, lease, owner); err != nil {
		return fmt.Errorf("tlsauto: release lease %s: %w", lease, err)
	}
	return nil
}

// clean removes now and then what processes have left that ended without a word. If it fails nothing is
// lost but space, until the next time.
func (s *SQLStore) clean(ctx context.Context, now time.Time) {
	last := s.cleaned.Load()
	if age := now.UnixMilli() - last; 0 <= age && age < cleanEvery.Milliseconds() {
		return
	}
	if !s.cleaned.CompareAndSwap(last, now.UnixMilli()) {
		return
	}
	before := now.Add(-leftoverAge).UnixMilli()
	for _, query := range []string{s.query.cleanLeases, s.query.cleanChallenges} {
		_, _ = s.db.ExecContext(ctx, query, before)
	}
}

func (s *SQLStore) sealContext(name string) string { return sqlStoreContext + s.table + "/" + name }

func checkLease(lease, owner string) error {
	if owner == "" || len(owner) > maxOwner {
		return fmt.Errorf("tlsauto: lease %.80q: the owner has no name, or one of more than %d bytes", lease, maxOwner)
	}
	return checkStoreKey(lease)
}

// checkStoreKey returns an error for what is no key of a Store.
func checkStoreKey(key string) error {
	bad := key == "" || len(key) > maxStoreKey
	for i := range len(key) {
		c := key[i]
		bad = bad || !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_+", c) >= 0)
	}
	if bad {
		return fmt.Errorf("tlsauto: store: %.80q is not a key", key)
	}
	return nil
}
