package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/bedplate/bedplate/auth/internal/outbox"
	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/sqlite"
)

// Migrate makes the tables of this package, or completes those that are there,
// such as a _user table made by TrailBase. [New] calls it; an application whose
// own migrations refer to _user calls it before those.
func Migrate(ctx context.Context, db *sqlite.DB) error {
	return db.Update(ctx, func(tx *sqlite.Tx) error {
		for _, stmt := range append(strings.Split(schema, "\n\n"), throttle.Schema, outbox.Schema) {
			if _, err := tx.ExecContext(ctx, stmt); err != nil {
				return fmt.Errorf("auth: make tables: %w", err)
			}
		}
		for _, column := range addedColumns {
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM pragma_table_info('_user') WHERE name = ?`, column.name).Scan(&n); err != nil {
				return fmt.Errorf("auth: look at table _user: %w", err)
			}
			if n > 0 {
				continue
			}
			if _, err := tx.ExecContext(ctx, "ALTER TABLE _user ADD COLUMN "+column.name+" "+column.definition); err != nil {
				return fmt.Errorf("auth: complete table _user: %w", err)
			}
		}
		return nil
	})
}

// addedColumns are those of _user that the wire contract does not have.
var addedColumns = []struct{ name, definition string }{
	{"disabled", "INTEGER NOT NULL DEFAULT 0"},
	{"totp_step", "INTEGER NOT NULL DEFAULT 0"},
}

// The tables. All times are unix seconds of Config.Now; the defaults of
// created and updated are for rows that SQL inserts.
//
// Nothing here can be used by who reads a copy: passwords are hashed, tokens
// of full strength are kept as SHA-256, short codes as an HMAC under the master
// key, and what must be read back is sealed under it.
const schema = `CREATE TABLE IF NOT EXISTS _user (
	id                  BLOB PRIMARY KEY NOT NULL CHECK (is_uuid(id)) DEFAULT (uuid_v4()),
	email               TEXT COLLATE NOCASE CHECK (is_email(email)),
	unverified_email    TEXT COLLATE NOCASE CHECK (is_email(unverified_email)),
	username            TEXT COLLATE NOCASE,
	password_hash       TEXT,
	admin               INTEGER NOT NULL DEFAULT 0,
	totp_secret         TEXT, -- sealed; base32 as written by others is sealed at the next start
	created             INTEGER NOT NULL DEFAULT (unixepoch()),
	updated             INTEGER NOT NULL DEFAULT (unixepoch()),
	provider_id         INTEGER NOT NULL DEFAULT 0,
	provider_user_id    TEXT,
	provider_avatar_url TEXT,
	disabled            INTEGER NOT NULL DEFAULT 0,
	totp_step           INTEGER NOT NULL DEFAULT 0 -- of the last accepted code
) STRICT

CREATE UNIQUE INDEX IF NOT EXISTS _user_email ON _user(email)

CREATE UNIQUE INDEX IF NOT EXISTS _user_username ON _user(username)

CREATE INDEX IF NOT EXISTS _user_unverified_email ON _user(unverified_email) WHERE unverified_email IS NOT NULL

CREATE UNIQUE INDEX IF NOT EXISTS _user_provider ON _user(provider_id, provider_user_id)

CREATE INDEX IF NOT EXISTS _user_unsealed ON _user(id) WHERE substr(totp_secret, 1, 7) <> 'sealed:'

CREATE TRIGGER IF NOT EXISTS _user_updated AFTER UPDATE ON _user FOR EACH ROW
BEGIN
	UPDATE _user SET updated = unixepoch() WHERE id = OLD.id;
END

CREATE TABLE IF NOT EXISTS _session (
	id            BLOB PRIMARY KEY NOT NULL, -- 16 random bytes
	user          BLOB NOT NULL REFERENCES _user(id) ON DELETE CASCADE,
	created       INTEGER NOT NULL,
	expires       INTEGER NOT NULL,
	seen          INTEGER NOT NULL,
	authenticated INTEGER NOT NULL, -- when credentials were last shown
	method        TEXT NOT NULL,    -- "password", "password totp", "oauth:google", ...
	cookie        INTEGER NOT NULL, -- 1: made for a browser
	device        TEXT NOT NULL,    -- User-Agent
	address       TEXT NOT NULL
) STRICT, WITHOUT ROWID

CREATE INDEX IF NOT EXISTS _session_user ON _session(user)

CREATE INDEX IF NOT EXISTS _session_expires ON _session(expires)

CREATE TABLE IF NOT EXISTS _refresh_token (
	hash    BLOB PRIMARY KEY NOT NULL, -- SHA-256
	session BLOB NOT NULL REFERENCES _session(id) ON DELETE CASCADE,
	used    INTEGER -- when it was rotated, in milliseconds
) STRICT, WITHOUT ROWID

CREATE INDEX IF NOT EXISTS _refresh_token_session ON _refresh_token(session)

CREATE TABLE IF NOT EXISTS _one_time (
	hash    BLOB PRIMARY KEY NOT NULL, -- SHA-256 of a token, HMAC of a code
	purpose TEXT NOT NULL,
	user    BLOB REFERENCES _user(id) ON DELETE CASCADE,
	data    BLOB, -- sealed
	tries   INTEGER NOT NULL DEFAULT 0,
	session BLOB, -- of an authorization code that was used
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID

CREATE INDEX IF NOT EXISTS _one_time_user ON _one_time(user, purpose)

CREATE INDEX IF NOT EXISTS _one_time_expires ON _one_time(expires)

CREATE TABLE IF NOT EXISTS _user_identity (
	issuer   TEXT NOT NULL,
	subject  TEXT NOT NULL,
	user     BLOB NOT NULL REFERENCES _user(id) ON DELETE CASCADE,
	provider INTEGER NOT NULL,
	created  INTEGER NOT NULL,
	seen     INTEGER NOT NULL,
	PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID

CREATE INDEX IF NOT EXISTS _user_identity_user ON _user_identity(user)

CREATE TABLE IF NOT EXISTS _recovery_code (
	user BLOB NOT NULL REFERENCES _user(id) ON DELETE CASCADE,
	hash BLOB NOT NULL, -- HMAC
	used INTEGER,
	PRIMARY KEY (user, hash)
) STRICT, WITHOUT ROWID

CREATE TABLE IF NOT EXISTS _known_device (
	user BLOB NOT NULL REFERENCES _user(id) ON DELETE CASCADE,
	hash BLOB NOT NULL, -- HMAC of an address bucket or of a cookie
	seen INTEGER NOT NULL,
	PRIMARY KEY (user, hash)
) STRICT, WITHOUT ROWID

CREATE TABLE IF NOT EXISTS _api_key (
	id      BLOB PRIMARY KEY NOT NULL,
	hash    BLOB NOT NULL UNIQUE, -- SHA-256
	user    BLOB NOT NULL REFERENCES _user(id) ON DELETE CASCADE,
	name    TEXT NOT NULL,
	prefix  TEXT NOT NULL, -- of the key, for its owner
	scopes  TEXT NOT NULL, -- JSON
	created INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	seen    INTEGER
) STRICT, WITHOUT ROWID

CREATE INDEX IF NOT EXISTS _api_key_user ON _api_key(user)

CREATE INDEX IF NOT EXISTS _api_key_expires ON _api_key(expires)

CREATE INDEX IF NOT EXISTS _known_device_seen ON _known_device(seen)

CREATE TABLE IF NOT EXISTS _avatar (
	user    BLOB PRIMARY KEY NOT NULL REFERENCES _user(id) ON DELETE CASCADE,
	type    TEXT NOT NULL,
	hash    BLOB NOT NULL, -- of the file, for its ETag
	updated INTEGER NOT NULL,
	file    BLOB NOT NULL
) STRICT

CREATE TABLE IF NOT EXISTS _signing_key (
	kid     TEXT PRIMARY KEY NOT NULL,
	public  BLOB NOT NULL,
	secret  BLOB NOT NULL, -- sealed
	created INTEGER NOT NULL,
	signs   INTEGER NOT NULL, -- from when it signs
	retires INTEGER -- until when it verifies
) STRICT, WITHOUT ROWID

CREATE TABLE IF NOT EXISTS _auth_secret (
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	secret BLOB NOT NULL -- sealed; the keys of all MACs come from it
) STRICT`
