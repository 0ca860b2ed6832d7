package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync/atomic"

	"github.com/bedplate/bedplate/sqlite"
)

// A Table reads and writes the records of one API as values of the struct type
// T, with the access control lists, rules, conditions and hooks that apply to
// requests. It acts as the caller that Config.Caller finds in the context, as
// another one after [Table.As], or as the application after [Table.AsSystem];
// and after [Table.In] in a transaction of the application. The zero Table
// cannot be used, see [TableOf]. It is safe for concurrent use.
//
// The fields of T are columns, by their names in JSON: all of them must be
// there, but T need not have all columns. A field without a json tag may differ
// from its column in case, "json:\"-\"" is none. Hidden and excluded columns
// cannot be fields. A column is held by
//
//   - an integer of any size or a bool, if it is INTEGER,
//   - a float, if it is REAL,
//   - a string or what implements encoding.TextMarshaler and TextUnmarshaler,
//     if it is TEXT,
//   - a []byte, an array of bytes or a [UUID], if it is BLOB,
//   - any of these, if its type is another,
//   - a [time.Time], if it is not BLOB or REAL: as Unix seconds in INTEGER, and
//     otherwise as 2006-01-02T15:04:05.000Z, in UTC, what is below a millisecond
//     being cut off,
//   - whatever encoding/json can encode and decode, if it is JSON,
//   - a []byte of WKB, a string of GeoJSON or what is GeoJSON in encoding/json,
//     if it is a geometry,
//   - a [File], a *File or, for several, a []File if it holds files, which are
//     those that the record has and stay; or an [Upload], an *Upload or a
//     []Upload, which are new ones and stay empty when a record is read,
//   - an any, which is read as int64, float64, string or []byte,
//   - types such as [database/sql.NullString], and pointers to all of these,
//     which are nil for NULL. Other fields read NULL as their zero value.
//
// Errors that a client would be told about are [*Error], such as [ErrDenied]
// and [ErrNotFound].
type Table[T any] struct {
	s   *Service
	api string
	as  *Caller    // nil: Config.Caller
	tx  *sqlite.Tx // nil: transactions of its own

	latest *atomic.Pointer[tableFields] // of T, for the schema as it was last
}

// TableOf returns the table of an API. It reports all fields of T that do not
// fit. If the schema changes so that others do not, operations fail.
func TableOf[T any](s *Service, api string) (*Table[T], error) {
	t := &Table[T]{s: s, api: api, latest: &atomic.Pointer[tableFields]{}}
	p, err := s.plan(api)
	if errors.Is(err, ErrNotAllowed) {
		return nil, fmt.Errorf("records: table of %s: there is no API %q", reflect.TypeFor[T](), api)
	}
	if err == nil {
		_, err = t.fields(p)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// As returns a Table that acts as c. The zero Caller is an anonymous one. In
// Caller.ID, a [UUID] and other arrays of 16 bytes are as good as slices.
func (t *Table[T]) As(c Caller) *Table[T] {
	if v := reflect.ValueOf(c.ID); c.ID != nil && v.Kind() == reflect.Array && v.Type().ConvertibleTo(reflect.TypeFor[UUID]()) {
		id := v.Convert(reflect.TypeFor[UUID]()).Interface().(UUID)
		c.ID = id[:]
	}
	other := *t
	other.as = &c
	return &other
}

// AsSystem returns a Table that acts as the application itself, for which
// neither access control lists nor rules count. Conditions on values and the
// constraints of the database do, and hooks run.
func (t *Table[T]) AsSystem() *Table[T] { return t.As(Caller{System: true}) }

// In returns a Table whose operations are part of tx, a transaction of the same
// database: they see what it has written and stand or fall with it. One that
// fails leaves the transaction as it was before. [API.After] is called, and
// files are deleted, when it has been committed. The Table can be used as long
// as tx can, and by one goroutine.
func (t *Table[T]) In(tx *sqlite.Tx) *Table[T] {
	other := *t
	other.tx = tx
	return &other
}

// Get returns a record. id is an integer, a string or the 16 bytes of a UUID,
// as the key is, or the text that stands for it in a path.
func (t *Table[T]) Get(ctx context.Context, id any) (v T, err error) {
	b, user, err := t.begin(ctx)
	if err != nil {
		return v, err
	}
	p := b.plan
	if !p.allows(Read, user) {
		return v, ErrDenied
	}
	r := &request{user: user}
	if r.key, err = p.table.key.keyOf(id); err != nil {
		return v, err
	}
	st, guarded := b.readOne, p.read != nil
	if user.system {
		st, guarded = b.readAny, false
	}
	// A statement by key takes no time worth interrupting.
	query := func(query string, args []driver.Value, row func([]driver.Value) error) error {
		return t.s.db.Query(context.Background(), query, args, row)
	}
	if t.tx != nil {
		query = t.tx.Query
	}
	found := false
	err = query(st.sql, st.bind(r), func(row []driver.Value) error {
		found = true
		return b.load(reflect.ValueOf(&v).Elem(), row)
	})
	switch {
	case err != nil:
		var none T
		return none, refusal(err, guarded)
	case !found && guarded:
		return v, ErrDenied
	case !found:
		return v, ErrNotFound
	}
	return v, nil
}

// Insert creates a record and returns its key: an int64, a string or a [UUID].
// The key is nil if it was taken and API.Conflict is Ignore. A zero key is left
// to the database, as are zero fields with omitempty or omitzero.
func (t *Table[T]) Insert(ctx context.Context, v T) (id any, err error) {
	b, user, err := t.begin(ctx)
	if err != nil {
		return nil, err
	}
	w := &write{op: Create, p: b.plan}
	if err := w.permitted(user); err != nil {
		return nil, err
	}
	if w.r, err = b.request(user, reflect.ValueOf(&v).Elem(), Create, nil); err != nil {
		return nil, t.wrap(err)
	}
	if err := t.s.apply(ctx, t.tx, []*write{w}, nil); err != nil || w.rows == 0 {
		return nil, err
	}
	return publicKey(w.key), nil
}

// Update changes a record: the columns that are named, or else all that T has
// but the key and zero fields with omitempty or omitzero.
func (t *Table[T]) Update(ctx context.Context, id any, v T, columns ...string) error {
	b, user, err := t.begin(ctx)
	if err != nil {
		return err
	}
	w := &write{op: Update, p: b.plan}
	if err := w.permitted(user); err != nil {
		return err
	}
	if w.r, err = b.request(user, reflect.ValueOf(&v).Elem(), Update, columns); err != nil {
		return t.wrap(err)
	}
	if w.r.key, err = b.plan.table.key.keyOf(id); err != nil {
		return err
	}
	return t.s.apply(ctx, t.tx, []*write{w}, nil)
}

// Delete deletes a record.
func (t *Table[T]) Delete(ctx context.Context, id any) error {
	b, user, err := t.begin(ctx)
	if err != nil {
		return err
	}
	w := &write{op: Delete, p: b.plan}
	if err := w.permitted(user); err != nil {
		return err
	}
	w.r = &request{user: user}
	if w.r.key, err = b.plan.table.key.keyOf(id); err != nil {
		return err
	}
	return t.s.apply(ctx, t.tx, []*write{w}, nil)
}

// begin returns what an operation needs: how T holds the records at present,
// and who asks.
func (t *Table[T]) begin(ctx context.Context) (*tableFields, caller, error) {
	if err := ctx.Err(); err != nil {
		return nil, caller{}, err
	}
	p, err := t.s.planFor(t.api, t.tx != nil)
	if err != nil {
		return nil, caller{}, err
	}
	b := t.latest.Load()
	if b == nil || b.plan != p {
		if b, err = t.fields(p); err != nil {
			return nil, caller{}, (&Error{Status: http.StatusInternalServerError}).because(err)
		}
	}
	if t.as != nil {
		user, err := newCaller(*t.as)
		return b, user, err
	}
	user, err := t.s.caller(ctx)
	return b, user, err
}

// fields matches T with p.
func (t *Table[T]) fields(p *plan) (*tableFields, error) {
	b, err := newTableFields(reflect.TypeFor[T](), p)
	if err != nil {
		return nil, t.wrap(err)
	}
	t.latest.Store(b)
	return b, nil
}

// wrap adds to the errors of Go what they are about.
func (t *Table[T]) wrap(err error) error {
	var told *Error
	if errors.As(err, &told) {
		return err
	}
	return fmt.Errorf("records: table of %s for API %q: %w", reflect.TypeFor[T](), t.api, err)
}

// permitted reports why user may not do what w does, whatever the row.
func (w *write) permitted(user caller) error {
	switch {
	case w.p.table.view:
		return ErrNotAllowed
	case !w.p.allows(w.op, user):
		return ErrDenied
	}
	return nil
}

// keyOf returns the key that id stands for.
func (c *column) keyOf(id any) (driver.Value, error) {
	v := reflect.ValueOf(id)
	if id != nil && v.Kind() == reflect.String {
		return c.decodeID(v.String())
	}
	key, err := storedAny(id, c)
	if err != nil || key == nil || !addressable(key) {
		return nil, ErrInvalidID.because(err)
	}
	return key, nil
}

// publicKey returns a key as the application is given it.
func publicKey(v driver.Value) any {
	if b, ok := v.([]byte); ok && len(b) == len(UUID{}) {
		return UUID(b)
	}
	return v
}
