package records

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Service serves record APIs over HTTP; see [New]. It is safe for concurrent
// use and owns no goroutine, so it needs no Close.
type Service struct {
	db      *sqlite.DB
	id      string // tells it from others in this process
	cfg     Config
	log     *slog.Logger
	cursors *cursors
	buffers bufferPool
	files   *files // nil: none
	slow    slots
	seed    maphash.Seed // of weak entity tags

	plans     atomic.Pointer[planSet]
	refreshMu sync.Mutex
}

// planSet is all APIs compiled against one state of the schema.
type planSet struct {
	byName  map[string]*plan
	schema  int64        // the version it was compiled against
	changes int64        // DB.SchemaChanges at that time
	checked atomic.Int64 // when the version was last looked at, Unix nanoseconds
	again   bool         // not all could be prepared, which is to be tried again
}

// recheckEvery is how soon a change of the schema by another process is seen.
const recheckEvery = int64(time.Second)

// New compiles the APIs of cfg against the schema of db and reports every
// mistake at once, each with its API, its rule and the position. With a mistake
// it leaves the database as it is. When the schema changes later, the APIs are
// compiled anew, and tables with subscriptions are recorded again if they were
// not; an API that does not fit any more answers 500 until it does.
func New(db *sqlite.DB, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	var errs []error
	if cfg.BodyLimit < 0 || cfg.QueryTimeout < 0 || cfg.HookTimeout < 0 {
		errs = append(errs, errors.New("records: a limit is negative"))
	}
	if cfg.CursorKey != nil && len(cfg.CursorKey) != 32 {
		errs = append(errs, fmt.Errorf("records: cursor key has %d bytes, 32 are needed", len(cfg.CursorKey)))
	}
	s := &Service{db: db, cfg: cfg, log: cfg.Logger, seed: maphash.MakeSeed()}
	files, err := newFiles(db, cfg.Files, cfg.BodyLimit, cfg.Now, cfg.Logger)
	s.files = files
	errs = append(errs, err)
	s.id = fmt.Sprintf("%p", s)
	s.slow = make(slots, max(1, db.MaxReaders()-1))
	set, mistakes, err := s.compile(context.Background())
	if err = errors.Join(append(errs, mistakes, err)...); err == nil { // nothing is written before all is well
		set, err = s.prepare(context.Background(), set)
	}
	if err != nil {
		return nil, err
	}
	s.plans.Store(set)
	key := cfg.CursorKey
	if key == nil {
		if key, err = storedKey(db); err != nil {
			return nil, fmt.Errorf("records: cursor key: %w", err)
		}
	}
	s.cursors, err = newCursors(key)
	return s, err
}

// compile compiles all APIs against the present schema; see the func compile.
func (s *Service) compile(ctx context.Context) (set *planSet, mistakes, err error) {
	changes := s.db.SchemaChanges()
	version, err := s.db.SchemaVersion(ctx)
	if err != nil {
		return nil, nil, err
	}
	plans, mistakes, err := compile(ctx, s.db, s.cfg, s.files)
	set = &planSet{byName: plans, schema: version, changes: changes}
	set.checked.Store(time.Now().UnixNano())
	return set, mistakes, err
}

// prepare makes in the database what the APIs need: the table for repeated
// requests, the registry of files, the record of changes. It returns the APIs
// compiled against the schema after that, also with an error of some tables.
func (s *Service) prepare(ctx context.Context, set *planSet) (after *planSet, err error) {
	errs := []error{s.makeAnswerTables(ctx, set)}
	if s.files != nil {
		errs = append(errs, s.files.install(ctx, set.byName))
	}
	errs = append(errs, s.track(ctx, set))
	if set.changes == s.db.SchemaChanges() {
		return set, errors.Join(errs...)
	}
	after, mistakes, err := s.compile(context.WithoutCancel(ctx)) // which what went before may have used up
	if err != nil {
		after = set
	}
	return after, errors.Join(append(errs, mistakes, err)...)
}

// track has the tables with subscriptions recorded.
func (s *Service) track(ctx context.Context, set *planSet) error {
	tables := map[string][]string{}
	for i := range s.cfg.APIs {
		p := set.byName[s.cfg.APIs[i].Name]
		if p != nil && p.live != nil && !slices.Contains(tables[p.table.database], p.table.name) {
			tables[p.table.database] = append(tables[p.table.database], p.table.name)
		}
	}
	var errs []error
	for _, database := range slices.Sorted(maps.Keys(tables)) {
		log, err := s.db.ChangeLog(database)
		if err == nil {
			_, _ = log.Head(ctx) // which notices when the log is not there any more
			err = log.Track(ctx, tables[database]...)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("records: subscriptions: %w", err))
		}
	}
	return errors.Join(errs...)
}

// storedKey returns the key in the database, making one at first.
func storedKey(db *sqlite.DB) (key []byte, err error) {
	fresh := make([]byte, 32)
	if _, err := rand.Read(fresh); err != nil {
		return nil, err
	}
	err = db.Write(context.Background(),
		sqlite.Stmt{SQL: `CREATE TABLE IF NOT EXISTS _records_key (name TEXT PRIMARY KEY NOT NULL, key BLOB NOT NULL) STRICT`},
		sqlite.Stmt{SQL: `INSERT INTO _records_key (name, key) VALUES ('cursor', ?1) ON CONFLICT DO NOTHING`, Args: []driver.Value{fresh}},
		sqlite.Stmt{SQL: `SELECT key FROM _records_key WHERE name = 'cursor'`, Row: func(row []driver.Value) { key, _ = row[0].([]byte) }})
	return key, err
}

// plan returns the API of that name, compiled against the present schema.
func (s *Service) plan(name string) (*plan, error) { return s.planFor(name, false) }

// planFor is plan for a caller that may be holding the writer or a reading
// connection. Preparing the database would wait for the writer: that is left to
// the next one that does not.
func (s *Service) planFor(name string, holding bool) (*plan, error) {
	set := s.plans.Load()
	if now := time.Now().UnixNano(); set.changes != s.db.SchemaChanges() || now-set.checked.Load() > recheckEvery {
		set = s.refresh(set, holding)
	}
	p := set.byName[name]
	if p != nil {
		return p, nil
	}
	for i := range s.cfg.APIs {
		if s.cfg.APIs[i].Name == name {
			return nil, &Error{Status: 500, cause: fmt.Errorf("api %q does not fit the schema any more", name)}
		}
	}
	return nil, ErrNotAllowed
}

// maxHoldingRefresh bounds refresh inside of a transaction.
const maxHoldingRefresh = 250 * time.Millisecond

// refresh returns plans for the present schema, compiling them if it changed.
// One request does it. Others wait for it after a change by this handle, so
// that it is visible at once, and otherwise go on with what there is.
func (s *Service) refresh(set *planSet, holding bool) *planSet {
	if set.changes != s.db.SchemaChanges() && !holding {
		s.refreshMu.Lock()
	} else if !s.refreshMu.TryLock() {
		return set
	}
	defer s.refreshMu.Unlock()
	if now := s.plans.Load(); now != set {
		if now.changes == s.db.SchemaChanges() {
			return now
		}
		set = now
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if holding { // a connection, too, which may be the only one
		ctx, cancel = context.WithTimeout(ctx, maxHoldingRefresh)
		defer cancel()
	}
	changes := s.db.SchemaChanges()
	version, err := s.db.SchemaVersion(ctx)
	if err != nil {
		set.checked.Store(time.Now().UnixNano())
		s.log.Error("read schema version", "error", err)
		return set
	}
	next := &planSet{byName: set.byName, schema: version, changes: changes, again: set.again}
	if version != set.schema || set.again && !holding {
		var mistakes error
		if next, mistakes, err = s.compile(ctx); err != nil {
			// The database cannot be asked at the moment; the next request tries again.
			s.log.Error("compile record APIs", "error", err)
			return set
		}
		if mistakes != nil {
			s.log.Error("record APIs do not fit the schema", "error", mistakes)
		}
		if next.again = holding; !holding {
			next = s.prepareAgain(next, set.again)
		}
	}
	next.checked.Store(time.Now().UnixNano())
	if holding {
		next.checked.Store(0) // to be looked at by the next one
	}
	s.plans.Store(next)
	return next
}

// prepareAgain is prepare after a change of the schema: another process may
// have made a table, or put another file in the place of this one. It returns
// set, if it is still of the present schema.
func (s *Service) prepareAgain(set *planSet, warned bool) *planSet {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.QueryTimeout)
	defer cancel()
	set, err := s.prepare(ctx, set)
	if set.again = err != nil; err != nil && !warned {
		s.log.Error("prepare the database for record APIs", "error", err)
	}
	return set
}

// A caller is a [Caller] whose id is a value of the database, nil when
// anonymous.
type caller struct {
	id     driver.Value
	allow  func(api string, op Permission) bool
	system bool
}

func (s *Service) caller(ctx context.Context) (caller, error) { return newCaller(s.cfg.Caller(ctx)) }

func newCaller(c Caller) (caller, error) {
	user := caller{allow: c.Allow, system: c.System}
	switch id := c.ID.(type) {
	case nil:
	case int64, string:
		user.id = id
	case []byte:
		if id != nil {
			user.id = id
		}
	default:
		return caller{}, fmt.Errorf("records: caller's id is a %T, want int64, string or []byte", id)
	}
	return user, nil
}

// public returns the Caller that c was made of.
func (c caller) public() Caller { return Caller{ID: c.id, Allow: c.allow, System: c.system} }

// slots bounds how many lists that may take long run at once, so that one
// reading connection is left for quick requests.
type slots chan struct{}

func (s slots) acquire(ctx context.Context) (release func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// maxPooled bounds the buffers that are kept for reuse.
const maxPooled = 1 << 20

type bufferPool struct{ pool sync.Pool }

type buffer struct {
	b    []byte
	pool *bufferPool
}

func (p *bufferPool) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, 4096), p}
}

// put gives b back with the memory that it has grown to.
func (b *buffer) put(grown []byte) {
	if cap(grown) <= maxPooled {
		b.b = grown[:0]
		b.pool.pool.Put(b)
	}
}
