//go:build no_default_driver

package main

import (
	"database/sql"

	"github.com/mattn/go-sqlite3"
	"github.com/pocketbase/dbx"
)

const driverName = "pocketbase_mattn"

// pragmas are those of the driver PocketBase ships with.
var pragmas = []string{
	"busy_timeout = 10000", // first: the next one may have to wait
	"journal_mode = WAL",
	"journal_size_limit = 200000000",
	"synchronous = NORMAL",
	"foreign_keys = ON",
	"temp_store = MEMORY",
	"cache_size = -32000",
}

func init() {
	sql.Register(driverName, &sqlite3.SQLiteDriver{
		ConnectHook: func(c *sqlite3.SQLiteConn) error {
			for _, p := range pragmas {
				if _, err := c.Exec("PRAGMA "+p, nil); err != nil {
					return err
				}
			}
			return nil
		},
	})
	dbx.BuilderFuncMap[driverName] = dbx.NewSqliteBuilder
}

// connect opens a file with mattn/go-sqlite3.
func connect(path string) (*dbx.DB, error) { return dbx.Open(driverName, path) }
