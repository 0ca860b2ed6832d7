package sqlite

import (
	"fmt"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// functionOptions is what the SQL functions of a connection depend on.
type functionOptions struct {
	now     func() time.Time // nil: time.Now
	schemas *schemaSet       // for jsonschema(); nil: the built-in ones
	ids     *idSource        // share it to order uuid_v7() across connections; nil: one of its own
}

// registerFunctions adds the SQL functions of this package to a connection.
// They have no side effects and are registered as innocuous, so that CHECK,
// DEFAULT, indexes, views, triggers and generated columns may use them (the
// pure ones, where SQLite asks for that) whatever trusted_schema says.
//
// A check (is_..., jsonschema...) holds for NULL and fails for a value of
// another type. The others return NULL for NULL and an error for an argument
// that makes no sense.
func registerFunctions(c *sqlite3.SQLiteConn, o functionOptions) error {
	if o.now == nil {
		o.now = time.Now
	}
	if o.ids == nil {
		o.ids = newIDSource(o.now)
	}
	if o.schemas == nil {
		var err error
		if o.schemas, err = newSchemaSet(nil); err != nil {
			return err
		}
	}
	db, err := databaseHandle(c)
	if err != nil {
		return err
	}
	if err := registerUUIDChecks(db); err != nil {
		return fmt.Errorf("is_uuid: %w", err)
	}
	for _, group := range [][]function{
		uuidFunctions(o.ids),
		textFunctions(),
		jsonFunctions(o.schemas),
		geoFunctions(),
	} {
		for _, f := range group {
			if err := f.register(db); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return nil
}
