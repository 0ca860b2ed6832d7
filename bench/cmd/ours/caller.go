package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// tokens is a cache of verified tokens: what remains of authentication on
// every request but the first.
type tokens map[[sha256.Size]byte]*records.Caller

// callerKey is the context key of the *records.Caller.
type callerKey struct{}

// loadTokens fills the cache from the table that the seed wrote.
func loadTokens(ctx context.Context, db *sqlite.DB) (tokens, error) {
	t := make(tokens)
	err := db.View(ctx, func(tx *sqlite.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT token_hash, user FROM sessions`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var hash, user []byte
			if err := rows.Scan(&hash, &user); err != nil {
				return err
			}
			if len(hash) != sha256.Size {
				return fmt.Errorf("a token hash of %d bytes", len(hash))
			}
			t[[sha256.Size]byte(hash)] = &records.Caller{ID: user}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("loading tokens: %w", err)
	}
	return t, nil
}

// middleware puts the caller of a request with a known token into its
// context.
func (t tokens) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			if c := t[sha256.Sum256([]byte(token))]; c != nil {
				r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
			}
		}
		next.ServeHTTP(w, r)
	})
}

// caller is the Config.Caller of the backend.
func caller(ctx context.Context) records.Caller {
	if c, ok := ctx.Value(callerKey{}).(*records.Caller); ok {
		return *c
	}
	return records.Caller{}
}
