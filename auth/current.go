package auth

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/sqlite"
)

// Current reports, for each of users, whether the credential that it has shown
// is still what it was: the session, API key or identity is there and has not
// expired, with the same scopes, and belongs to the same account, which is not
// disabled and has neither become an administrator's nor ceased to be one. It
// is for what outlives a request, such as event streams.
//
// It asks the database, whatever is cached, once for each kind of credential:
// call it for many users at once. A token is not verified again; it ends by
// itself at User.Expires, which is not looked at here. A user that was not
// found by [Service.Middleware] is judged by the account alone, and a nil one
// is not current.
func (s *Service) Current(ctx context.Context, users []*User) ([]bool, error) {
	var asked [len(currentKinds)]question
	for i, u := range users {
		if u != nil {
			asked[currentKind(u)].add(i, u)
		}
	}
	current := make([]bool, len(users))
	now := s.now().Unix()
	err := s.db.Read(ctx, func(r *sqlite.Reader) error {
		for kind, q := range asked {
			if len(q.users) == 0 {
				continue
			}
			args := []driver.Value{string(append(q.list, ']'))}
			if currentKinds[kind].timed {
				args = append(args, now)
			}
			err := r.Query(currentKinds[kind].sql, args, func(v []driver.Value) error {
				i := q.users[integer(v[0])]
				u := users[i]
				current[i] = bytes.Equal(blob(v[1]), u.ID[:]) && (integer(v[2]) != 0) == u.Admin && text(v[3]) == u.storedScopes
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("auth: look at credentials again: %w", err)
	}
	return current, nil
}

// currentKinds are the questions of Current, about a list of what users have
// shown: the keys of rows. An answer has the place in the list, the account,
// whether it is an administrator's, and scopes. The conditions are those under
// which a request is let in.
var currentKinds = [...]struct {
	sql   string
	timed bool // ?2 is the time
}{
	ofAccount: {sql: `SELECT j.key, u.id, u.admin, NULL FROM json_each(?1) j
		CROSS JOIN _user u ON u.id = unhex(j.value)
		WHERE u.disabled = 0`},
	ofSession: {timed: true, sql: `SELECT j.key, u.id, u.admin, NULL FROM json_each(?1) j
		CROSS JOIN _session s ON s.id = unhex(j.value)
		CROSS JOIN _user u ON u.id = s.user
		WHERE s.expires > ?2 AND u.disabled = 0`},
	ofAPIKey: {timed: true, sql: `SELECT j.key, u.id, u.admin, k.scopes FROM json_each(?1) j
		CROSS JOIN _api_key k ON k.hash = unhex(j.value)
		CROSS JOIN _user u ON u.id = k.user
		WHERE k.expires > ?2 AND u.disabled = 0 AND u.unverified_email IS NULL`},
	ofIdentity: {sql: `SELECT j.key, u.id, u.admin, NULL FROM json_each(?1) j
		CROSS JOIN _user_identity i ON i.issuer = j.value ->> 0 AND i.subject = j.value ->> 1
		CROSS JOIN _user u ON u.id = i.user
		WHERE u.disabled = 0 AND u.unverified_email IS NULL`},
}

const (
	ofAccount = iota
	ofSession
	ofAPIKey
	ofIdentity
)

// currentKind is the place in currentKinds of the question about u.
func currentKind(u *User) int {
	switch u.Credential {
	case Bearer, Cookie:
		return ofSession
	case APIKey:
		return ofAPIKey
	case External:
		return ofIdentity
	}
	return ofAccount
}

// A question is what users have shown, as a JSON list without its end.
type question struct {
	list  []byte
	users []int // place of each in the list of users
}

func (q *question) add(i int, u *User) {
	separator := byte(',')
	if len(q.users) == 0 {
		separator = '['
	}
	q.users = append(q.users, i)
	q.list = append(q.list, separator)
	switch u.Credential {
	case Bearer, Cookie:
		q.addHex(u.session)
	case APIKey:
		q.addHex(u.keyHash)
	case External:
		q.list = jsonx.AppendString(append(q.list, '['), u.issuer)
		q.list = append(jsonx.AppendString(append(q.list, ','), u.subject), ']')
	default:
		q.addHex(u.ID[:])
	}
}

func (q *question) addHex(key []byte) {
	q.list = append(hex.AppendEncode(append(q.list, '"'), key), '"')
}

// maxMoment is the end of the year 9999: later times do not fit everywhere.
const maxMoment = 253402300799

// moment is a time in unix seconds as the application sees it.
func moment(unix int64) time.Time { return time.Unix(min(unix, maxMoment), 0) }
