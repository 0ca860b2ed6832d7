package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// A View is how subscribers of one kind see the changes of a table. It is safe
// for concurrent use.
type View interface {
	// Key is equal for views that show the same, so that one can stand for
	// all of them.
	Key() string

	// Source returns the database, "main" or the name of an attached one,
	// and the table.
	Source() (database, table string)

	// PerUser reports whether it depends on the user what is shown.
	PerUser() bool

	// Filtered reports whether it depends on what a client has chosen, so
	// that its cost is not the application's.
	Filtered() bool

	// Judge calls see for every image of a row that a user may see: the row
	// before (old) or after changes[change], as users[user]. Changes are of
	// the view's table and are inserts, updates and deletes. When PerUser is
	// false, users is not looked at and user is 0. It runs in a snapshot of
	// q. The slice changes may be kept and compared with others by its
	// first element; it is not modified later. [ErrGone] means that nobody
	// may see this any more.
	Judge(q *sqlite.Scratch, changes []*sqlite.Change, users []any, see func(change, user int, old bool)) error

	// Encoding is a comparable value, equal where AppendRow is the same.
	Encoding() any

	// AppendRow appends an image of a row as a JSON object.
	AppendRow(dst []byte, c *sqlite.Change, old bool) ([]byte, error)

	// RowKey returns the primary key of an image: int64, string or []byte.
	RowKey(c *sqlite.Change, old bool) any

	// Err returns why nobody may see this any more, or nil.
	Err() error
}

// A Subscription is what a request asks for. User and Record are nil, an int64,
// a string or a []byte.
type Subscription struct {
	View   View
	User   any // who asks, as View.Judge takes it; nil is anonymous
	Record any // key of the one record to watch; nil: all
}

// check reports a mistake of the application's: streams of users that cannot
// be told apart would be one.
func (s *Subscription) check() error {
	switch {
	case s == nil || s.View == nil:
		return errors.New("realtime: Subscribe has returned no subscription")
	case !isKey(s.User):
		return fmt.Errorf("realtime: Subscription.User is a %T, not an int64, a string or a []byte", s.User)
	case !isKey(s.Record):
		return fmt.Errorf("realtime: Subscription.Record is a %T, not an int64, a string or a []byte", s.Record)
	}
	return nil
}

// An Identity is who makes a request.
type Identity struct {
	// User names the user for Config.MaxPerUser; "" is anonymous.
	User string

	// Expires is when the identity ends by itself; zero: never.
	Expires time.Time

	// Value is the application's own, for Config.Check.
	Value any
}

// Config configures [New].
type Config struct {
	// Subscribe checks a request for the changes of an API, of all its
	// records ("*") or of one. An [Error] tells the client why it is
	// refused. nil: there are none.
	Subscribe func(r *http.Request, api, record string) (*Subscription, error)

	// Accept decides who may listen to a channel of [Service.Publish]: nil
	// lets the request in, an [Error] is told to the client, any other error
	// is a 403. Without Accept nobody may.
	Accept func(r *http.Request, channel string) error

	// Identify tells who makes a request, from its context. nil: everybody
	// is anonymous.
	Identify func(ctx context.Context) Identity

	// Check reports, for each of the identities that hold streams, whether
	// it is still what it was when Identify returned it: signed in, with the
	// same rights. It is asked every two seconds, so that streams end soon
	// after a sign-out; when it fails, three times in a row, all streams that
	// depend on it end. It must return when ctx ends. It is not asked about
	// anonymous ones. nil: they are.
	Check func(ctx context.Context, ids []Identity) ([]bool, error)

	// MaxStreams, MaxPerUser and MaxPerAddress bound the open streams, in
	// all, of one signed-in user and of one address (an IPv6 /64); default
	// 10,000, 1,000 and 2,000. Beyond them requests get status 503 with
	// Retry-After.
	MaxStreams, MaxPerUser, MaxPerAddress int

	// Proxies and TrustedProxies tell where the address of a client is to be
	// found; see the fields of the same names in package auth.
	Proxies        int
	TrustedProxies []netip.Prefix

	// Heartbeat is the longest silence on a stream; default 15 s.
	Heartbeat time.Duration

	// WriteTimeout is how long a client may take no bytes before its stream
	// is cut; default 10 s. Over HTTP/2, a client whose whole connection
	// takes nothing is the server's to cut: see
	// [http.HTTP2Config.WriteByteTimeout].
	WriteTimeout time.Duration

	// MaxLifetime is after how long a stream ends, give or take a fifth, so
	// that clients come back with fresh credentials and spread over servers;
	// default 1 h, none if negative.
	MaxLifetime time.Duration

	// Retry is how soon a client is told to come back when its stream has
	// ended; default 2 s. At the end of a stream up to as much again is
	// added at random.
	Retry time.Duration

	// MaxEvent is the greatest event of Publish in bytes; default 64 KiB, at
	// most 1 MiB.
	MaxEvent int

	// Logger gets what no client is told; default slog.Default().
	Logger *slog.Logger

	// Now is the clock; default time.Now.
	Now func() time.Time
}
