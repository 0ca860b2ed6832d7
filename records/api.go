package records

import (
	"context"
	"log/slog"
	"time"
)

// Permission is a set of operations.
type Permission uint8

const (
	Create Permission = 1 << iota // POST
	Read                          // GET of one record and of lists
	Update                        // PATCH
	Delete                        // DELETE
	Schema                        // the JSON Schema of the records
)

// Conflict says what a create does when its primary key is taken.
type Conflict int

const (
	// Abort, the default, refuses the request.
	Abort Conflict = iota
	// Ignore leaves the existing row and creates nothing; no id is returned.
	Ignore
	// Replace overwrites the existing row, if the caller may also update it:
	// it needs the Update permission, and UpdateRule applies to the row.
	Replace
)

// An API exposes one table or view. Only Name and Table are needed; without
// permissions nobody can use it.
type API struct {
	// Name is the first part of the path: letters, digits, underscores.
	Name string

	// Table is a table or a view, in an attached database "name.table".
	// It has a primary key of one column: INTEGER, TEXT, or a BLOB that is
	// checked to be a UUID (is_uuid, is_uuid_v4, is_uuid_v7) or refers to
	// one. A view can be read only; its key is the column named by Key.
	Table string

	// World and Authenticated are what everybody and what signed-in callers
	// may do. World implies Authenticated. Zero: nothing.
	World, Authenticated Permission

	// Rules narrow an operation further; see the package documentation.
	// Empty: no further condition.
	CreateRule string // over _USER_, _REQ_, _REQ_FIELDS_
	ReadRule   string // over _USER_, _ROW_
	UpdateRule string // over _USER_, _ROW_, _REQ_, _REQ_FIELDS_
	DeleteRule string // over _USER_, _ROW_
	SchemaRule string // over _USER_

	// Check is a rule over _USER_ and _ROW_ that a row must satisfy after a
	// create or an update, so that nobody moves it out of their own reach.
	Check string

	// Expand lists foreign key columns whose rows may be included on
	// request. Where APIs expose the other table, a row is included only if
	// the caller may read it through one of them.
	Expand []string

	// Back lists the other direction: rows of other APIs that refer to a
	// row of this one and may be included with it on request, by name.
	Back []BackRelation

	// FullText names an FTS5 table that indexes columns of Table, with its
	// rowids: lists then take match=, a full-text query
	// (https://www.sqlite.org/fts5.html#full_text_query_syntax). Every
	// column of it must be one that callers may see. FTS5 must be compiled
	// into the program, with the build tag sqlite_fts5.
	//
	// Not together with ReadRule: FTS5 looks at all documents, and how long
	// that takes tells what is in those that the rule would hide. Instead,
	// keep what each class of readers may see in a table of its own, with an
	// index and an API without a rule, or search in a handler of your own.
	FullText string

	// Exclude lists columns that do not exist as far as this API goes.
	Exclude []string

	// Conflict is Abort by default.
	Conflict Conflict

	// AutofillUser fills foreign keys to the user table that a create leaves
	// out with the caller's id.
	AutofillUser bool

	// ListLimit is the greatest page size; default 1024.
	ListLimit int

	// Key is the key column of a view; default "id". Its values must be
	// unique. Not for tables.
	Key string

	// Subscriptions lets whoever may read subscribe to changes; see
	// Service.Subscribe. The table, which must not be a view, is recorded in
	// the change log of its database: every write costs a little more.
	// ReadRule is then also judged on rows as they were, so it cannot use
	// the rowid unless that is the primary key.
	Subscriptions bool

	// Validate holds conditions on the values that requests give, by column:
	// tags of go-playground/validator, such as "required,min=3,max=80" or
	// "omitempty,email". They are judged before the database is asked. NULL,
	// and a column that a create leaves out, is judged as the zero value,
	// unless the database fills it: then only "required" counts. A number that
	// is given is there for "required", also if it is 0. An update is judged
	// by the columns that it gives. Hidden, generated and file columns, and
	// tags that ask the file system, are refused by New.
	Validate map[string]string

	// Bind is a value of a struct type whose fields, by their json names, are
	// columns, with validate tags; unlike Validate these may compare fields
	// with each other, which counts if the request gives all of them, and a 0
	// is none for "required", except behind a pointer. Only the type counts.
	Bind any

	// Before is called inside the transaction of each create, update and
	// delete, after the rule has granted it and before the row is written.
	// It may change what is written, and use the transaction; neither the
	// rule nor Validate is asked again, Check is. Its error undoes the whole
	// request; one made by [Refuse], [ErrDenied] and [ErrNotFound] are what the
	// client is told, any other is logged and answered with 500, as is a panic.
	// With Ignore what it did for a taken key is undone. It may be called again for
	// the same change, if the transaction is lost, so it should do nothing
	// outside of it. Everybody who writes waits for it: see
	// Config.HookTimeout. Rows that foreign keys, triggers or SQL of the
	// application change are not told of.
	Before func(ctx context.Context, c *Change) error

	// After is called when a create, update or delete has been committed, and
	// never otherwise, before the request is answered. A panic is logged. A
	// crash right after the commit leaves it out.
	After func(ctx context.Context, c *Change)
}

// A BackRelation is a set of rows that refer to a row: those of API whose
// foreign key Column is the row's key.
type BackRelation struct {
	Name   string // in expand= and in the record; not the name of a column
	API    string // whose rules apply
	Column string // of that API, a foreign key to this API's table
	Limit  int    // the most rows to include, in order of their key; default 50
}

// A Caller is whoever makes a request.
type Caller struct {
	// ID identifies the caller in rules: an int64, a string or, for a UUID,
	// its 16 bytes. nil is an anonymous caller.
	ID any

	// Allow, if not nil, limits the caller further, as the scopes of an API
	// key do: what it does not allow is denied whatever the API says. It is
	// asked with the API's name and one permission.
	Allow func(api string, p Permission) bool

	// System marks the application itself, for which neither access control
	// lists nor rules count. What it writes is still validated, and hooks run.
	System bool
}

// Config configures [New].
type Config struct {
	APIs []API

	// Caller returns who makes the request with this context, as the
	// application's sign-in has left it there. nil: everybody is anonymous.
	Caller func(ctx context.Context) Caller

	// UserTable is the table that Caller.ID refers to, for
	// API.AutofillUser; default "_user".
	UserTable string

	// BodyLimit is the greatest request body in bytes; default 10 MiB.
	BodyLimit int64

	// QueryTimeout interrupts a list that takes longer; default 2 s.
	QueryTimeout time.Duration

	// CursorKey is the 32-byte key that seals list cursors. nil: a random
	// one, kept in the database in the table _records_key.
	CursorKey []byte

	// Files says where and how the content of file columns is kept. nil:
	// file columns can be read but not written.
	Files *FilesConfig

	// HookTimeout is when the contexts of hooks end; default 2 s. All Before
	// of one request, which is then undone and answered with 503, have it
	// together, each After has it for itself.
	HookTimeout time.Duration

	// Now is the clock; default time.Now.
	Now func() time.Time

	// Logger gets the errors that a client is not told; default
	// slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Caller == nil {
		c.Caller = func(context.Context) Caller { return Caller{} }
	}
	if c.UserTable == "" {
		c.UserTable = "_user"
	}
	if c.BodyLimit == 0 {
		c.BodyLimit = 10 << 20
	}
	if c.QueryTimeout == 0 {
		c.QueryTimeout = 2 * time.Second
	}
	if c.HookTimeout == 0 {
		c.HookTimeout = 2 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
