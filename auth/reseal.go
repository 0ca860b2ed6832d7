package auth

import (
	"context"
	"database/sql/driver"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/bedplate/bedplate/sqlite"
)

// reseal seals what lasts under the first master key of the file, when another
// one has sealed it: the signing keys, the TOTP secrets and, at the end, so that
// an interrupted run is repeated, the secret itself. What does not last, mails
// and tokens under way, stays as it is.
func (s *Service) reseal(ctx context.Context, sealed, secret []byte) error {
	if err := s.resealKeys(ctx); err != nil {
		return fmt.Errorf("auth: seal the signing keys anew: %w", err)
	}
	err := s.rewriteSeeds(ctx, "totp_secret IS NOT NULL", func(stored string) bool {
		encoded, ok := strings.CutPrefix(stored, sealedPrefix)
		value, err := base64.RawStdEncoding.DecodeString(encoded)
		return ok && (err != nil || s.key.Outdated(value))
	})
	if err != nil {
		return err
	}
	err = s.db.Write(ctx, sqlite.Stmt{
		SQL:  `UPDATE _auth_secret SET secret = ? WHERE id = 1 AND secret = ?`,
		Args: []driver.Value{s.key.Seal(secretContext, secret), sealed},
	})
	if err != nil {
		return fmt.Errorf("auth: seal the secret anew: %w", err)
	}
	s.log.InfoContext(ctx, "sealed anew under the first master key")
	return nil
}

func (s *Service) resealKeys(ctx context.Context) error {
	var stmts []sqlite.Stmt
	err := s.db.Query(ctx, `SELECT kid, secret FROM _signing_key`, nil, func(v []driver.Value) error {
		kid, sealed := text(v[0]), blob(v[1])
		seed, err := s.key.Open("signing key/"+kid, sealed)
		if err != nil {
			return err
		}
		stmts = append(stmts, sqlite.Stmt{
			SQL:  `UPDATE _signing_key SET secret = ? WHERE kid = ?`,
			Args: []driver.Value{s.key.Seal("signing key/"+kid, seed), kid},
		})
		return nil
	})
	if err != nil || len(stmts) == 0 {
		return err
	}
	return s.db.Write(ctx, stmts...)
}
