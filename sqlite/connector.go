package sqlite

import (
	"context"
	"database/sql/driver"
	"time"
)

// NewConnector returns a connector for a database/sql handle of one's own on
// any database file, as by [Driver] and with custom JSON Schemas besides, those
// of Options.Schemas:
//
//	connector, err := sqlite.NewConnector("copy.db", schemas)
//	…
//	db := sql.OpenDB(connector)
//
// The data source name is that of mattn/go-sqlite3. The error tells every
// schema that is not one; whether there is a file is not looked at.
func NewConnector(name string, schemas map[string]string) (driver.Connector, error) {
	set, err := newSchemaSet(schemas)
	if err != nil {
		return nil, err
	}
	return fileConnector{name, set}, nil
}

type fileConnector struct {
	name    string
	schemas *schemaSet
}

func (c fileConnector) Connect(context.Context) (driver.Conn, error) {
	return openRaw(c.name, functionOptions{now: time.Now, schemas: c.schemas}, "PRAGMA synchronous=FULL")
}

func (c fileConnector) Driver() driver.Driver { return Driver{} }
