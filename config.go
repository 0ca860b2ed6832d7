package bedplate

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// A Database is a further database file. Its tables are known as name.table.
type Database struct {
	Name       string // letters, digits and underscores
	Path       string
	Migrations fs.FS   // optional
	Replica    Replica // optional; one of its own
}

// Config configures [Open].
type Config struct {
	// Path is the database file, created when it does not exist. DB is an
	// open handle to use instead; it stays the application's to close. One
	// of the two is needed.
	Path string
	DB   *sqlite.DB

	// SQLite holds further options for Path. Its Logger and Attach are
	// filled in from Logger and Databases.
	SQLite sqlite.Options

	// Migrations are numbered .sql files, applied before anything else; see
	// [sqlite.DB.Migrate].
	Migrations fs.FS

	// Databases are further database files beside Path.
	Databases []Database

	// Records are the record APIs.
	Records []records.API

	// Replica copies the database elsewhere, from Open to Close, and restores it when Path does not
	// exist; see package backup. A DB of the application's has to be restored before it is opened,
	// and opened with sqlite.Options.Replicated.
	Replica Replica

	// Auth signs users in; nil leaves that to the application. Its Logger is
	// filled in from Logger. Its tables are made before Migrations run, so
	// that these can refer to _user.
	Auth *auth.Config

	// Caller tells who makes a request, from its context. nil: whom Auth
	// knows, or everybody is anonymous. It cannot be given together with
	// Auth.
	Caller func(context.Context) records.Caller

	// Realtime configures event streams. nil: the defaults, if one of Records
	// has Subscriptions, and no streams otherwise. Its Subscribe is made of
	// Records, and its Identify and Check of Auth, if there is one: those must
	// be nil then. Otherwise the default Identify knows users by Caller. Its
	// Logger is filled in from Logger; Now, and Proxies with TrustedProxies, if
	// it leaves them out, are those of Auth.
	Realtime *realtime.Config

	// Files says where and how the content of file columns is kept. nil: file
	// columns can be read but not written. Files that no row refers to are
	// removed at the start and every hour. The store stays the application's.
	Files *records.FilesConfig

	// HookTimeout is when the contexts of hooks end; default 2 s.
	HookTimeout time.Duration

	// BodyLimit is the greatest request body in bytes; default 10 MiB.
	BodyLimit int64

	// CursorKey seals list cursors; see [records.Config].
	CursorKey []byte

	// DrainTimeout is how long Serve waits for running requests when its
	// context ends; default 10 s.
	DrainTimeout time.Duration

	// Logger gets what no client is told; default slog.Default().
	Logger *slog.Logger
}

func (cfg Config) validate() error {
	var errs []error
	bad := func(text string) { errs = append(errs, errors.New("bedplate: "+text)) }
	if (cfg.Path == "") == (cfg.DB == nil) {
		bad("exactly one of Path and DB is needed")
	}
	if cfg.DB != nil && len(cfg.Databases) > 0 {
		bad("Databases need Path; attach them to DB with sqlite.Options")
	}
	if len(cfg.SQLite.Attach) > 0 {
		bad("list attached databases in Databases, not in SQLite.Attach")
	}
	if cfg.Auth != nil && cfg.Caller != nil {
		bad("at most one of Auth and Caller can be given")
	}
	cfg.checkRealtime(bad)
	if cfg.DrainTimeout < 0 {
		bad("DrainTimeout is negative")
	}
	return errors.Join(errs...)
}
