package records

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// A Change is one create, update or delete, as hooks see it. It is theirs
// until they return.
type Change struct {
	API    string
	Op     Permission // Create, Update or Delete
	Caller Caller

	// ID is the primary key: an int64, a string or the bytes of a UUID. nil in
	// Before of a create that leaves the key to the database.
	ID any

	// Old is the row before an update or a delete, with all columns of the
	// table, and nil for a create. Values are nil, int64, float64, string or
	// []byte.
	Old map[string]any

	// Values are what a create or an update sets, by column, in the form in
	// which they are stored. Before may change, add and remove values: no rule
	// is asked about those, but Check is. nil for a delete.
	Values map[string]any

	// Tx is the transaction, nil in After.
	Tx *sqlite.Tx
}

// Refuse returns an error with which [API].Before tells the client that a
// request is refused and why. The status is from 400 to 499.
func Refuse(status int, text string) *Error {
	if status < 400 || status > 499 {
		status = http.StatusBadRequest
	}
	return &Error{Status: status, Text: text, refused: true}
}

// holdTime is how much longer than its hooks a request may keep the writer.
const holdTime = time.Second

func (w *write) newChange(old []driver.Value) *Change {
	c := &Change{API: w.p.api.Name, Op: w.op, Caller: w.r.user.public(), ID: w.r.key}
	if old != nil {
		c.Old = make(map[string]any, len(old))
		for _, col := range w.p.table.columns {
			c.Old[col.name] = old[col.index]
		}
	}
	if w.op == Delete {
		return c
	}
	c.Values = map[string]any{}
	for _, col := range w.p.table.columns {
		if w.r.given.has(col.index) {
			v := w.r.values[col.index]
			if b, ok := v.([]byte); ok {
				v = bytes.Clone(b) // the request may be executed again
			}
			c.Values[col.name] = v
		}
	}
	if k := w.p.table.key; w.op == Create && w.r.given.has(k.index) {
		c.ID = w.r.values[k.index]
	}
	return c
}

// before calls the Before hook of w, if there is one.
func (s *Service) before(ctx context.Context, tx *sqlite.Tx, w *write) error {
	hook := w.p.api.Before
	if hook == nil {
		return nil
	}
	c := w.change
	c.Tx = tx
	err := contained(func() error { return hook(ctx, c) })
	c.Tx = nil
	if err == nil {
		err = ctx.Err()
	}
	var refused *Error
	var panicked *sqlite.PanicError
	switch {
	case !errors.As(err, &panicked) && errors.As(err, &refused) && (refused.refused || refused == ErrDenied || refused == ErrNotFound):
		return refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return (&Error{Status: http.StatusServiceUnavailable}).because(fmt.Errorf("hook before the write: %w", err))
	case err != nil:
		return (&Error{Status: http.StatusInternalServerError}).because(fmt.Errorf("hook before the write: %w", err))
	case w.op == Delete:
		return nil
	}
	return w.take(c.Values)
}

// take makes values what w writes.
func (w *write) take(values map[string]any) error {
	w.r.given = fieldSet{}
	for name, v := range values {
		col := w.p.table.exact(name)
		value, ok := stored(v)
		switch {
		case col == nil || col.generated:
			return fmt.Errorf("hook before the write: there is no column %q to be set", name)
		case !ok:
			return fmt.Errorf("hook before the write: column %q is set to a %T", name, v)
		case col == w.p.table.key && w.op == Update:
			return fmt.Errorf("hook before the write: the key %q cannot be changed", name)
		}
		w.r.values[col.index] = value
		w.r.given.add(col.index)
	}
	return nil
}

// stored returns v as the database takes it.
func stored(v any) (driver.Value, bool) {
	switch v := v.(type) {
	case nil, int64, float64, string, []byte:
		return v, true
	case int:
		return int64(v), true
	case bool:
		return boolInt(v), true
	}
	return nil, false
}

// after calls the After hooks.
func (j *job) after(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.s.cfg.HookTimeout)
	defer cancel()
	for _, w := range j.writes {
		if w.p.api.After == nil || w.op == Create && w.rows == 0 {
			continue
		}
		w.change.ID = w.key
		err := contained(func() error {
			w.p.api.After(ctx, w.change)
			return nil
		})
		if err != nil {
			j.s.log.ErrorContext(ctx, "hook after the commit", "api", w.p.api.Name, "error", err)
		}
	}
}

// contained turns a panic of fn into an error.
func contained(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &sqlite.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return fn()
}
