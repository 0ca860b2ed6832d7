package sqlite

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// DriverName is the name under which this package registers its driver with
// database/sql.
const DriverName = "bedplate"

func init() { sql.Register(DriverName, Driver{}) }

// Driver is mattn/go-sqlite3 with the SQL functions of this package, foreign
// keys enforced, LIKE case-sensitive and commits durable
// (synchronous=FULL). Custom JSON Schemas (Options.Schemas) are known to the
// connections of [Open], [DB.Connector] and [NewConnector] only. The data source name is
// that of mattn/go-sqlite3.
type Driver struct{}

// Open returns a new connection to the database.
func (Driver) Open(name string) (driver.Conn, error) {
	set, err := newSchemaSet(nil)
	if err != nil {
		return nil, err
	}
	return openRaw(name, functionOptions{now: time.Now, schemas: set}, "PRAGMA synchronous=FULL")
}

func openRaw(dsn string, o functionOptions, pragmas string) (driver.Conn, error) {
	d := sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		if err := registerFunctions(c, o); err != nil {
			return fmt.Errorf("register SQL functions: %w", err)
		}
		// Functions are registered as innocuous, so that CHECK (is_uuid_v7(id))
		// works although the schema itself is not trusted.
		_, err := c.Exec("PRAGMA trusted_schema=OFF; PRAGMA foreign_keys=ON; PRAGMA case_sensitive_like=ON;"+pragmas, nil)
		return err
	}}
	return d.Open(dsn)
}
