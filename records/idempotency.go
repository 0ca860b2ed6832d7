package records

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// keepAnswers is for how long a request with an Idempotency-Key can be
// repeated: the answer is kept in the table _records_answer, which commits with
// what the request has written.
const keepAnswers = 24 * time.Hour

// maxIdempotencyKey bounds an Idempotency-Key in bytes.
const maxIdempotencyKey = 255

var (
	errIdempotencyKey = badRequest("Invalid Idempotency-Key")
	errReused         = &Error{Status: http.StatusUnprocessableEntity, Text: "Idempotency-Key was used for another request"}
)

// once makes a request take place once, however often it is sent.
type once struct {
	database    string
	key         []byte // hash of who asks for what with which key
	fingerprint []byte // hash of the request
	now         time.Time
	answer      func() []byte // of the request, when it is done
	kept        []byte        // the answer that there was already
}

// errAnswered ends a transaction whose request had been answered before.
var errAnswered = errors.New("answered before")

// newOnce returns what the Idempotency-Key of r asks for, or nil. scope is the
// path without the prefix.
func (s *Service) newOnce(r *http.Request, user caller, scope, database string, body []byte, answer func() []byte) (*once, error) {
	lines := r.Header["Idempotency-Key"]
	if len(lines) == 0 {
		return nil, nil
	}
	key := lines[0]
	if len(lines) > 1 || key == "" || len(key) > maxIdempotencyKey {
		return nil, errIdempotencyKey
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return nil, errIdempotencyKey
		}
	}
	who := sha256.Sum256(fmt.Appendf(nil, "%s\x00%q\x00%t\x00%s", scope, identity(user.id), user.system, key))
	what := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", r.URL.RawQuery, r.Header.Get("Content-Type"), body))
	return &once{database: database, key: who[:], fingerprint: what[:], now: s.cfg.Now(), answer: answer}, nil
}

// look finds the answer to the same request, which it returns errAnswered for.
func (o *once) look(tx *sqlite.Tx) error {
	var fingerprint []byte
	err := tx.Query("SELECT fingerprint, answer FROM "+quote(o.database)+"._records_answer WHERE key = ?1 AND expires > ?2",
		[]driver.Value{o.key, o.now.Unix()}, func(row []driver.Value) error {
			fingerprint, _ = row[0].([]byte)
			o.kept, _ = row[1].([]byte)
			return nil
		})
	switch {
	case err != nil || fingerprint == nil:
		return err
	case string(fingerprint) != string(o.fingerprint):
		o.kept = nil
		return errReused
	}
	return errAnswered
}

// keep keeps the answer, and forgets some that are out of date.
func (o *once) keep(tx *sqlite.Tx) error {
	table := quote(o.database) + "._records_answer"
	return tx.Write(
		sqlite.Stmt{
			SQL:  "DELETE FROM " + table + " WHERE key IN (SELECT key FROM " + table + " WHERE expires <= ?1 ORDER BY expires LIMIT 16)",
			Args: []driver.Value{o.now.Unix()},
		},
		sqlite.Stmt{
			SQL:  "INSERT INTO " + table + " (key, fingerprint, answer, expires) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer, expires = excluded.expires",
			Args: []driver.Value{o.key, o.fingerprint, o.answer(), o.now.Add(keepAnswers).Unix()},
		},
	)
}

// makeAnswerTables makes the tables that answers are kept in, in each database
// that has an API with which something can be created.
func (s *Service) makeAnswerTables(ctx context.Context, set *planSet) error {
	made := map[string]bool{}
	for _, p := range set.byName {
		database := p.table.database
		if made[database] || p.table.view || (p.api.World|p.api.Authenticated)&(Create|Update|Delete) == 0 {
			continue
		}
		made[database] = true
		there := false
		find := "SELECT 1 FROM " + quote(database) + ".sqlite_schema WHERE name = '_records_answer'"
		err := s.db.Query(ctx, find, nil, func([]driver.Value) error {
			there = true
			return nil
		})
		if err == nil && !there {
			table := quote(database) + "._records_answer"
			err = s.db.Write(ctx,
				sqlite.Stmt{SQL: "CREATE TABLE IF NOT EXISTS " + table + " (key BLOB PRIMARY KEY NOT NULL, fingerprint BLOB NOT NULL, answer BLOB NOT NULL, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID"},
				sqlite.Stmt{SQL: "CREATE INDEX IF NOT EXISTS " + quote(database) + "._records_answer_expires ON _records_answer (expires)"})
		}
		if err != nil {
			return fmt.Errorf("records: table for repeated requests: %w", err)
		}
	}
	return nil
}
